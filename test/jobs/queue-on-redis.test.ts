/** Jobs on a real Redis that several backends share; it is lost, comes back empty, is emptied under them, and a backend is killed at work. */
import { Queue, QueueEvents } from 'bullmq';
import { Redis } from 'ioredis';
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { somebodyWaits } from '../api/transaction.js';
import { Api } from '../harness/api.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { heldUp } from '../harness/held-up.js';
import { OwnRedis, redisMissing, REDIS_PASSWORD } from '../harness/own-redis.js';
import { until } from '../harness/until.js';
import { jobsRun } from './jobs-run.js';

const MISSING = redisMissing();
const INTERVAL_MS = 250;
const ENV = { HOUSEKEEPING_INTERVAL_MS: String(INTERVAL_MS) };
const PREFIX = 'bore:{queue}';

let database: TestDatabase;
let redis: OwnRedis;
let backends: Backend[] = [];
/** Ends what a test has opened, the last first. */
let closers: (() => unknown)[] = [];

beforeAll(async () => {
  if (MISSING) return;
  database = await createDatabase();
  redis = await OwnRedis.start();
  backends = await Promise.all([0, 1, 2].map(() => startBackend({ database, env: { ...redis.env, ...ENV } })));
});

afterAll(async () => {
  await Promise.all(backends.map((backend) => backend.stop()));
  await redis?.stop();
  await database?.drop();
});

beforeEach((context) => {
  if (MISSING) context.skip(MISSING);
  return async () => {
    for (const close of closers.toReversed()) await close();
    closers = [];
  };
});

/** What BullMQ takes as a connection of the test's own. */
function connection(port = redis.port): Redis {
  const client = new Redis({ host: '127.0.0.1', port, password: REDIS_PASSWORD, maxRetriesPerRequest: null });
  closers.push(() => client.disconnect());
  return client;
}

describe('jobs', () => {
  it('of each schedule run once an interval, over three backends', async () => {
    const events = new QueueEvents('housekeeping', { connection: connection(), prefix: PREFIX });
    closers.push(() => events.close());
    await events.waitUntilReady();
    const active: string[] = [];
    const began = performance.now();
    events.on('active', ({ jobId }) => active.push(jobId));
    const of = (task: string) => active.filter((id) => id.startsWith(`repeat:${task}:`));
    await until(() => of('lose-expired-servers').length >= 24, 'some runs', 18_000);
    const intervals = (performance.now() - began) / INTERVAL_MS;

    expect(new Set(active).size).toBe(active.length);
    for (const task of ['lose-expired-servers', 'close-due-tunnels']) {
      expect(of(task).length).toBeGreaterThan(intervals / 3);
      expect(of(task).length).toBeLessThanOrEqual(Math.ceil(intervals) + 1);
    }
  });

  it('go on by themselves after their Redis was away, although it comes back empty; no request waits', async () => {
    const before = backends.map((backend) => backend.output().length);
    await redis.kill9();
    // longer than it takes to give up on a connection, and to try often
    const enough = performance.now() + 5_000;
    let slowest = 0;
    let asked = 0;
    await until(async () => {
      const url = backends[asked++ % 3]?.url ?? '';
      const login = { email: 'nobody@example.com', password: 'wrong password' };
      const { answer, ms } = await heldUp(url, () => new Api(url).post('/api/v1/auth/login', login));
      expect(answer.status).toBe(401);
      slowest = Math.max(slowest, ms);
      return performance.now() > enough;
    }, 'requests are served');
    expect(slowest).toBeLessThan(2_000);
    // what is waiting for Redis does not keep a backend from ending
    await backends[2]?.stop();

    await redis.startAgain();
    await jobsRun(database);
    for (const i of [0, 1]) {
      const lines = backends[i]?.output().slice(before[i]).split('\n').filter(Boolean) ?? [];
      expect(lines.filter((line) => !line.includes('"msg":"request"')).length).toBeLessThan(15);
      expect(backends[i]?.exited()).toBe(false);
    }
    backends[2] = await startBackend({ database, env: { ...redis.env, ...ENV } });
  });

  it('go on after their Redis has hung, which keeps no backend from ending', async () => {
    redis.signal('SIGSTOP');
    const [first, , third] = backends;
    await until(async () => {
      const { body } = await new Api(first?.url ?? '').get('/health/ready');
      return body.details.redis.status === 'degraded';
    }, 'it is noticed');
    await third?.stop();
    redis.signal('SIGCONT');
    await jobsRun(database);
    backends[2] = await startBackend({ database, env: { ...redis.env, ...ENV } });
  });

  it('come back when Redis is emptied under them', async () => {
    await redis.ask((client) => client.flushall());
    await jobsRun(database);
  });

  it('of a backend that is killed at work are taken over by another', async () => {
    const own = await createDatabase();
    const ownRedis = await OwnRedis.start();
    closers.push(
      () => own.drop(),
      () => ownRedis.stop(),
    );
    const env = { ...ownRedis.env, ...ENV };
    const first = await startBackend({ database: own, env });
    const queue = new Queue('housekeeping', { connection: connection(ownRedis.port), prefix: PREFIX });
    const events = new QueueEvents('housekeeping', { connection: connection(ownRedis.port), prefix: PREFIX });
    closers.push(() => Promise.all([queue.close(), events.close()]));
    await events.waitUntilReady();
    await jobsRun(own);

    // closing tunnels waits for the lock of admissions, which we hold
    const holder = new pg.Client({ ...own.address });
    await holder.connect();
    await holder.query(`SELECT pg_advisory_lock(hashtext('bore-platform.capacity'))`);
    // in a statement of its, not behind it
    await somebodyWaits(own);
    const stuck = await until(
      async () => (await queue.getActive()).find(({ name }) => name === 'close-due-tunnels'),
      'a job is at work',
    );
    const done = new Promise<void>((resolve) => {
      events.on('completed', ({ jobId }) => jobId === stuck.id && resolve());
    });
    await first.kill9();
    await holder.end();
    const second = await startBackend({ database: own, env });
    closers.push(() => second.stop());
    await done;
    await jobsRun(own);
  });
});

describe('a Redis that forgets when its memory is full', () => {
  it('is complained about in the log and in /health/ready, until it is mended', async () => {
    const forgetful = await OwnRedis.start({ settings: ['maxmemory-policy allkeys-lru'] });
    const backend = await startBackend({ database, env: forgetful.env });
    try {
      await backend.waitFor('maxmemory-policy is allkeys-lru and must be noeviction');
      const ready = () => new Api(backend.url).get('/health/ready');
      expect(await ready()).toMatchObject({
        status: 200,
        body: { details: { redis: { status: 'degraded', message: expect.stringContaining('allkeys-lru') } } },
      });
      await forgetful.ask((client) => client.config('SET', 'maxmemory-policy', 'noeviction'));
      await until(async () => (await ready()).body.details.redis.status === 'up', 'it is noticed');
    } finally {
      await backend.stop();
      await forgetful.stop();
    }
  });
});
