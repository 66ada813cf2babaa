/** Redis as a cluster of three masters with a replica each, and under three Sentinels with a fail-over: all of them real processes. */
import { mkdtemp, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';

import { type Answer, Api } from '../harness/api.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { ownPort } from '../harness/own-ports.js';
import { OwnRedis, redisMissing, REDIS_PASSWORD } from '../harness/own-redis.js';
import { OwnRedisCluster } from '../harness/own-redis-cluster.js';
import { RunningProcess } from '../harness/running-process.js';
import { until } from '../harness/until.js';
import { jobsRun } from '../jobs/jobs-run.js';

const SENTINEL_PASSWORD = 'sentinel-0123456789abcdef';
const MISSING = redisMissing();

let database: TestDatabase;

beforeAll(async () => {
  if (!MISSING) database = await createDatabase();
});

afterAll(() => database?.drop());

beforeEach((context) => {
  if (MISSING) context.skip(MISSING);
});

async function startBackends(env: NodeJS.ProcessEnv): Promise<Backend[]> {
  const all = {
    REDIS_ENABLED: 'true',
    REDIS_PASSWORD,
    LOGIN_FAILURES_PER_MINUTE: '5',
    HOUSEKEEPING_INTERVAL_MS: '500',
    ...env,
  };
  const backends = await Promise.all([0, 1].map(() => startBackend({ database, env: all })));
  await Promise.all(backends.map((backend) => backend.waitFor('Redis is reachable')));
  return backends;
}

let accounts = 0;

/** The statuses of 40 guesses at once at one new account, spread over the backends. */
async function guesses(backends: readonly Backend[]): Promise<Record<number, number>> {
  const email = `account${accounts++}@example.com`;
  const answers = await Promise.all(
    Array.from({ length: 40 }, (_, i) => {
      const api = new Api(backends[i % backends.length]?.url ?? '');
      return api.post('/api/v1/auth/login', { email, password: 'wrong' });
    }),
  );
  const counts: Record<number, number> = {};
  for (const { status } of answers satisfies Answer[]) counts[status] = (counts[status] ?? 0) + 1;
  return counts;
}

const SHARED = { 401: 5, 429: 35 };
/** After that a process counts for itself. */
const COMMAND_TIMEOUT_MS = 1_000;

/** As `guesses`; others when there were more than five, and they took so long that Redis may not have counted some of them. */
async function countedGuesses(backends: readonly Backend[]): Promise<Record<number, number>> {
  for (let i = 0; ; i++) {
    const began = performance.now();
    const counts = await guesses(backends);
    if (i === 4 || counts[401] === SHARED[401] || performance.now() - began < COMMAND_TIMEOUT_MS) return counts;
  }
}
const PER_PROCESS = { 401: 10, 429: 30 };

async function sharedAgain(backends: readonly Backend[]): Promise<void> {
  await until(async () => (await guesses(backends))[401] === SHARED[401], 'backends count together again', 30_000);
}

describe('a cluster', () => {
  let cluster: OwnRedisCluster;
  let backends: Backend[] = [];

  beforeAll(async () => {
    if (MISSING) return;
    cluster = await OwnRedisCluster.start();
    backends = await startBackends(cluster.env);
  });

  afterAll(async () => {
    await Promise.all(backends.map((backend) => backend.stop()));
    await cluster?.stop();
  });

  it('is where backends count together, on whichever node an account lies', async () => {
    const lengths = backends.map((backend) => backend.output().length);
    for (let i = 0; i < 12; i++) expect(await countedGuesses(backends)).toEqual(SHARED);
    for (const [i, backend] of backends.entries())
      expect(backend.output().slice(lengths[i])).not.toContain('going on without it');
    const sizes = await Promise.all(cluster.nodes.map((node) => node.ask((redis) => redis.dbsize())));
    for (const size of sizes) expect(size).toBeGreaterThan(0);
    await jobsRun(database);
  });

  it('is where backends tell each other of events', async () => {
    const listening = async () => {
      const counts = await Promise.all(
        cluster.nodes.map((node) => node.ask((redis) => redis.pubsub('NUMSUB', 'bore:events'))),
      );
      return counts.reduce((sum, [, count]) => sum + Number(count), 0);
    };
    await until(async () => (await listening()) === backends.length, 'all listen');
  });

  it('that loses a master goes on with its replica; no request fails meanwhile', async () => {
    await cluster.kill(0);
    const seen: Record<number, number>[] = [];
    let isTaken = false;
    const taken = cluster.takenOver(0).finally(() => (isTaken = true));
    while (!isTaken) seen.push(await guesses(backends));
    await taken;
    await sharedAgain(backends);
    await jobsRun(database);
    for (const counts of seen) expect(Object.keys(counts)).toEqual(['401', '429']);
    await cluster.startAgain(0);
    await cluster.whole();
  });

  it('that loses a master and its replica fails no request, and is used again when it is whole', async () => {
    await cluster.kill(1, { withReplica: true });
    // the cluster is broken when its nodes have noticed; before, two thirds of the accounts are still counted together
    await cluster.broken();
    await until(async () => (await guesses(backends))[401] === PER_PROCESS[401], 'each process counts for itself');
    for (let i = 0; i < 3; i++) {
      const began = performance.now();
      expect(await guesses(backends)).toEqual(PER_PROCESS);
      expect(performance.now() - began).toBeLessThan(5_000);
    }
    await cluster.startAgain(1, { withReplica: true });
    await sharedAgain(backends);
    await jobsRun(database);
    for (const backend of backends) expect(backend.output()).not.toContain('"level":"error"');
  });
});

describe('Sentinels', () => {
  let servers: OwnRedis[] = [];
  let sentinels: RunningProcess[] = [];
  let backends: Backend[] = [];

  beforeAll(async () => {
    if (MISSING) return;
    const master = await OwnRedis.start();
    servers = [master, await OwnRedis.start({ settings: [`replicaof 127.0.0.1 ${master.port}`] })];
    await until(
      () => master.ask(async (redis) => (await redis.info('replication')).includes('state=online')),
      'a replica',
    );
    const ports = await Promise.all([0, 1, 2].map(() => ownPort()));
    sentinels = await Promise.all(ports.map((port) => startSentinel(port, master.port)));
    const REDIS_NODES = ports.map((port) => `127.0.0.1:${port}`).join(',');
    const env = {
      REDIS_MODE: 'sentinel',
      REDIS_NODES,
      REDIS_SENTINEL_NAME: 'bore',
      REDIS_SENTINEL_PASSWORD: SENTINEL_PASSWORD,
    };
    backends = await startBackends(env);
    // they must know each other and the replica before one of them may act
    for (const sentinel of sentinels)
      await until(() => (sentinel.output().match(/\+sentinel /g)?.length ?? 0) >= 2, 'all');
    for (const sentinel of sentinels) await sentinel.waitFor('+slave ');
  });

  afterAll(async () => {
    await Promise.all(backends.map((backend) => backend.stop()));
    await Promise.all([...sentinels, ...servers].map((process) => process.kill9()));
  });

  it('lead to the master, and to the next one when it is killed; no request fails meanwhile', async () => {
    expect(await countedGuesses(backends)).toEqual(SHARED);
    await servers[0]?.kill9();
    const seen: Record<number, number>[] = [];
    await until(
      async () => {
        seen.push(await guesses(backends));
        return sentinels.some((sentinel) => sentinel.output().includes('+switch-master'));
      },
      'a fail-over',
      30_000,
    );
    await sharedAgain(backends);
    await jobsRun(database);
    for (const counts of seen) expect(Object.keys(counts)).toEqual(['401', '429']);
    expect(await servers[1]?.ask((redis) => redis.dbsize())).toBeGreaterThan(0);
  });
});

async function startSentinel(port: number, masterPort: number): Promise<RunningProcess> {
  const folder = await mkdtemp(path.join(inject('scratch'), 'sentinel-'));
  const file = path.join(folder, 'sentinel.conf');
  const lines = [
    'bind 127.0.0.1',
    `port ${port}`,
    `dir ${folder}`,
    `requirepass ${SENTINEL_PASSWORD}`,
    `sentinel sentinel-pass ${SENTINEL_PASSWORD}`,
    `sentinel monitor bore 127.0.0.1 ${masterPort} 2`,
    `sentinel auth-pass bore ${REDIS_PASSWORD}`,
    'sentinel down-after-milliseconds bore 500',
    'sentinel failover-timeout bore 5000',
  ];
  await writeFile(file, `${lines.join('\n')}\n`);
  const sentinel = new RunningProcess('redis-server', [file, '--sentinel'], { PATH: process.env['PATH'] });
  await sentinel.waitFor('Sentinel ID is');
  return sentinel;
}
