/** Without Redis there is one backend: others are refused, its successor waits for it, and its place is taken when it dies. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { OwnPostgres } from '../harness/own-postgres.js';
import { OwnRedis, redisMissing } from '../harness/own-redis.js';
import { until } from '../harness/until.js';

const ALONE = { ALLOW_INSTANCES_WITHOUT_REDIS: 'false' };

let database: TestDatabase;
let running: Backend[] = [];

beforeAll(async () => {
  database = await createDatabase();
});

afterAll(() => database?.drop());

beforeEach(() => async () => {
  await Promise.all(running.map((backend) => backend.stop()));
  running = [];
});

async function start(env: NodeJS.ProcessEnv): Promise<Backend> {
  const backend = await startBackend({ database, env });
  running.push(backend);
  return backend;
}

async function refused(env: NodeJS.ProcessEnv, sentence: string): Promise<void> {
  const began = performance.now();
  const backend = await startBackend({ database, env, expectFailure: true });
  expect(await backend.exitCode()).toBe(1);
  expect(backend.output()).toContain(`bore-backend could not start: ${sentence}`);
  // it has waited for a predecessor to end
  expect(performance.now() - began).toBeGreaterThan(8_000);
}

/** Ends the connections on which backends hold their locks, as a network or a fail-over would. */
async function breakLocks(): Promise<number> {
  const rows = await database.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bore-instance' AND datname = current_database()`,
  );
  return rows.length;
}

describe('a backend without Redis', () => {
  it('refuses to start beside another', async () => {
    const first = await start(ALONE);
    await refused(ALONE, 'another backend runs on this database already, and without Redis there may be one only');
    expect((await new Api(first.url).get('/health/ready')).status).toBe(200);
    // allowed to run beside others is not the same as allowed to disturb one that counts on being alone
    await refused({ ALLOW_INSTANCES_WITHOUT_REDIS: 'true' }, 'another backend runs on this database already');
  });

  it('may be let run beside others of its kind', async () => {
    await start({ ALLOW_INSTANCES_WITHOUT_REDIS: 'true' });
    await start({ ALLOW_INSTANCES_WITHOUT_REDIS: 'true' });
  });

  it('and one with Redis exclude each other', async (context) => {
    const missing = redisMissing();
    if (missing) context.skip(missing);
    const redis = await OwnRedis.start();
    const alone = await start(ALONE);
    await refused(redis.env, 'a backend without Redis runs on this database already');
    await alone.stop();
    const [one, other] = [await start(redis.env), await start(redis.env)];
    await refused(ALONE, 'another backend runs on this database already');
    await Promise.all([one.stop(), other.stop()]);
    await redis.stop();
  });

  it('takes the place of one that was killed', async () => {
    const first = await start(ALONE);
    await first.kill9();
    // it would be refused after ten seconds
    await start(ALONE);
  });

  it('waits for one that is about to end, and serves while that one drains', async () => {
    const old = await start({ ...ALONE, SHUTDOWN_DRAIN_SECONDS: '20' });
    const successor = start(ALONE);
    // the successor asks for its place already
    const asked = `SELECT FROM pg_stat_activity WHERE application_name = 'bore-instance' AND datname = current_database()`;
    await until(async () => (await database.query(asked)).length > 1, 'the successor waits', 60_000);
    old.signal('SIGTERM');
    const next = await successor;
    expect(old.exited()).toBe(false);
    expect((await new Api(next.url).get('/health/ready')).status).toBe(200);
    expect(await old.exitCode()).toBe(0);
  });

  it('keeps its place through the loss of the connection that holds it', async () => {
    const backend = await start(ALONE);
    expect(await breakLocks()).toBe(1);
    await backend.waitFor('the lock of this instance is taken again');
    await refused(ALONE, 'another backend runs on this database already');
    expect(backend.exited()).toBe(false);
  });

  it('ends with an error when another has taken its place meanwhile', async () => {
    const old = await start(ALONE);
    // stopped for as long as the other needs: as a host that hangs
    old.signal('SIGSTOP');
    await breakLocks();
    await start(ALONE);
    old.signal('SIGCONT');
    expect(await old.exitCode()).toBe(1);
    expect(old.output()).toContain('stopping: another backend runs on this database already');
    expect(old.output()).toContain('"msg":"stopped"');
    running = running.filter((backend) => backend !== old);
  });

  it('that is told to stop while its database hangs does not wait for it', async () => {
    const hanging = await OwnPostgres.start();
    const backend = await startBackend({ database: hanging, env: ALONE });
    await hanging.freeze();
    try {
      backend.signal('SIGTERM');
      // with the 10 s that connections get to end: those to the database do not
      await until(() => backend.exited(), 'it has ended', 15_000);
      expect(backend.output()).toContain('requests or connections did not end in time');
    } finally {
      await hanging.thaw();
      await backend.kill9();
      await hanging.drop();
    }
  });
});
