/** The connection to Redis: it is found when it comes, by TLS and password, and never waited for. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { OwnRedis, redisMissing } from '../harness/own-redis.js';
import { until } from '../harness/until.js';
import { jobsRun } from '../jobs/jobs-run.js';

const MISSING = redisMissing();

let database: TestDatabase;
let redis: OwnRedis;

beforeAll(async () => {
  if (MISSING) return;
  database = await createDatabase();
  redis = await OwnRedis.start({ tls: true });
});

afterAll(async () => {
  await redis?.stop();
  await database?.drop();
});

beforeEach((context) => {
  if (MISSING) context.skip(MISSING);
});

describe('a backend', () => {
  it('starts without its Redis, and finds it when it comes', async () => {
    const away = await OwnRedis.start();
    await away.kill9();
    const alone = await startBackend({ database, env: away.env });
    try {
      const ready = () => new Api(alone.url).get('/health/ready');
      expect(await ready()).toMatchObject({ status: 200, body: { details: { redis: { status: 'degraded' } } } });
      await away.startAgain();
      await until(async () => (await ready()).body.details.redis.status === 'up', 'it is found');
    } finally {
      await alone.stop();
      await away.stop();
    }
  });

  it('speaks TLS to it, and only to a certificate that it trusts', async () => {
    const env = { ...redis.env, REDIS_PORT: String(redis.tlsPort), REDIS_TLS: 'true' };
    const NODE_EXTRA_CA_CERTS = `${redis.folder}/cert.pem`;
    const trusting = await startBackend({ database, env: { ...env, NODE_EXTRA_CA_CERTS } });
    let distrusting = await startBackend({ database, env });
    try {
      await trusting.waitFor('Redis is reachable');
      // one that the machine kept from its first attempt for too long says that, and only that
      for (let i = 0; (await distrusting.waitFor(/Redis is not reachable/)).includes('ETIMEDOUT') && i < 2; i++) {
        await distrusting.stop();
        distrusting = await startBackend({ database, env });
      }
      await jobsRun(database);
      expect(distrusting.output()).toContain('self-signed certificate');
    } finally {
      await Promise.all([trusting.stop(), distrusting.stop()]);
    }
  });

  it('goes on without a Redis that refuses its password, and does not tell it', async () => {
    const wrong = await startBackend({ database, env: { ...redis.env, REDIS_PASSWORD: 'not-this-one' } });
    try {
      await wrong.waitFor('WRONGPASS');
      expect((await new Api(wrong.url).get('/health/ready')).status).toBe(200);
      expect(wrong.output()).not.toContain('not-this-one');
      await redis.changePassword('not-this-one');
      await wrong.waitFor('Redis is reachable');
    } finally {
      await wrong.stop();
    }
  });

  it('stops while it looks for one', async () => {
    const away = await OwnRedis.start();
    await away.kill9();
    const looking = await startBackend({ database, env: away.env });
    await looking.waitFor('Redis is not reachable');
    await looking.stop();
  });
});
