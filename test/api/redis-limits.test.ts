/** Limits that backends share over a real Redis, which is lost and comes back. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { type Answer, Api } from '../harness/api.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { heldUp } from '../harness/held-up.js';
import { OwnRedis, redisMissing, REDIS_PASSWORD } from '../harness/own-redis.js';
import { until } from '../harness/until.js';

const PASSWORD = 'correct horse battery';
const LIMITS = { RATE_LIMIT_LOGINS_PER_MINUTE: '100000', LOGIN_FAILURES_PER_MINUTE: '5', TRUST_PROXY: '127.0.0.1' };
const MISSING = redisMissing();

let database: TestDatabase;
let redis: OwnRedis;
let backends: Backend[] = [];

beforeAll(async () => {
  if (MISSING) return;
  database = await createDatabase();
  redis = await OwnRedis.start();
  await startBackends();
});

async function startBackends(): Promise<void> {
  backends = await Promise.all([0, 1].map(() => startBackend({ database, env: { ...redis.env, ...LIMITS } })));
  await Promise.all(backends.map((backend) => backend.waitFor('Redis is reachable')));
}

afterAll(async () => {
  redis?.signal('SIGCONT');
  await Promise.all(backends.map((backend) => backend.stop()));
  await redis?.stop();
  await database?.drop();
});

beforeEach((context) => {
  if (MISSING) context.skip(MISSING);
});

let accounts = 0;
const newEmail = () => `account${accounts++}@example.com`;
const at = (i: number, address = '198.51.100.1') => new Api(backends[i]?.url ?? '', { 'x-forwarded-for': address });
const login = (i: number, email: string, password = PASSWORD, address?: string) =>
  at(i, address).post('/api/v1/auth/login', { email, password });
const redisState = async (i: number) => (await at(i).get('/health/ready')).body.details.redis?.status;

function count(answers: readonly Answer[], status: number): number {
  return answers.filter((answer) => answer.status === status).length;
}

/** What Redis does not answer in this time is counted by the process, and the machine may be what stood still. */
const COMMAND_TIMEOUT_MS = 1_000;
/** How often guesses are made anew after that. */
const TRIES = 5;

/** Whether `work` was done in less time than a command that Redis does not answer. */
async function isQuick(work: () => Promise<unknown>): Promise<boolean> {
  const began = performance.now();
  await work();
  return performance.now() - began < COMMAND_TIMEOUT_MS;
}

/** 60 guesses at once, spread over both backends. */
function guesses(): Promise<Answer[]> {
  const email = newEmail();
  return Promise.all(Array.from({ length: 60 }, (_, i) => login(i % 2, email, 'wrong')));
}

/** 60 guesses at once; others when there were more than five, and some of them Redis may not have counted. */
async function countedGuesses(): Promise<Answer[]> {
  let answers: Answer[] = [];
  for (let i = 0; i < TRIES; i++) {
    const wasQuick = await isQuick(async () => (answers = await guesses()));
    if (wasQuick || count(answers, 401) === 5) break;
  }
  return answers;
}

describe('two backends on one Redis', { timeout: 120_000 }, () => {
  it('share a limit, to the last attempt', async () => {
    const answers = await countedGuesses();
    expect(count(answers, 401)).toBe(5);
    expect(count(answers, 429)).toBe(55);
  });

  it('share what is familiar: an owner who was at one gets in at the other, through a storm', async () => {
    const email = newEmail();
    await at(0).post('/api/v1/auth/signup', { email, password: PASSWORD });
    expect((await login(0, email, PASSWORD, '192.0.2.1')).status).toBe(200);
    for (let i = 0, counted = 0; counted < 100 && i < 200; i++) {
      if (await isQuick(() => login(i % 2, email, 'wrong', `203.0.113.${i}`))) counted++;
    }
    expect((await login(0, email, PASSWORD, '192.0.2.2')).status).toBe(429);
    expect((await login(1, email, PASSWORD, '192.0.2.1')).status).toBe(200);
  });

  it('leave nothing behind that lives for ever, and no e-mail', async () => {
    const email = newEmail();
    await login(0, email, 'wrong');
    const keys = await redis.ask(async (client) => {
      const names = await client.keys('*');
      return Promise.all(names.map(async (name) => ({ name, ttl: await client.ttl(name) })));
    });
    for (const { name } of keys) expect(name).not.toContain('account');
    // the schedules and jobs of the queue are the only others
    const limits = keys.filter(({ name }) => !name.startsWith('bore:{queue}:'));
    expect(limits.length).toBeGreaterThan(3);
    for (const { name, ttl } of limits) {
      expect(name).toMatch(/^bore:limit:/);
      // for ever; one that is over meanwhile has -2, and one that is about to be 0
      expect(ttl).not.toBe(-1);
    }
  });
});

describe('Redis that is lost', { timeout: 120_000 }, () => {
  it('by kill -9 in the middle fails no request; limits go on for each process, and return by themselves', async () => {
    const email = newEmail();
    await at(0).post('/api/v1/auth/signup', { email, password: PASSWORD });
    const answers: Answer[] = [];
    let stop = false;
    const callers = Array.from({ length: 8 }, async (_, i) => {
      for (let n = 0; !stop; n++) answers.push(await login(i % 2, email, PASSWORD, `192.0.2.${(8 * n + i) % 250}`));
    });
    try {
      await until(() => answers.length > 30, 'logins are under way', 40_000);
      const lengths = backends.map((backend) => backend.output().length);
      await redis.kill9();
      const before = answers.length;
      await until(() => answers.length > before + 50, 'logins go on', 40_000);
      await until(
        async () => (await redisState(0)) === 'degraded' && (await redisState(1)) === 'degraded',
        'it is noticed',
      );
      expect((await at(0).get('/health/ready')).body.status).toBe('degraded');
      expect((await at(0).get('/health/ready')).status).toBe(200);

      const perProcess = await guesses();
      expect(count(perProcess, 401)).toBe(10);
      expect(count(perProcess, 429)).toBe(50);

      for (const [i, backend] of backends.entries())
        expect(
          backend
            .output()
            .slice(lengths[i])
            .match(/Redis is not reachable/g),
        ).toHaveLength(1);
      await redis.startAgain();
      await until(async () => (await redisState(0)) === 'up' && (await redisState(1)) === 'up', 'it is back', 40_000);
    } finally {
      stop = true;
      await Promise.all(callers);
    }
    expect(answers.filter(({ status }) => status !== 200).map(({ text }) => text)).toEqual([]);
    expect(count(await countedGuesses(), 401)).toBe(5);
    for (const backend of backends) expect(backend.output()).not.toContain(REDIS_PASSWORD);
  });

  it('by a machine that hangs costs a request a moment, and only at first', async () => {
    redis.signal('SIGSTOP');
    const email = newEmail();
    const began = performance.now();
    expect((await login(0, email, 'wrong')).status).toBe(401);
    expect(performance.now() - began).toBeLessThan(5_000);
    await until(async () => (await redisState(0)) === 'degraded', 'it is noticed', 40_000);
    let heldUpMs = 0;
    for (let i = 0; i < 20; i++) {
      const { answer, ms } = await heldUp(at(0).url, () => at(0).get('/api/v1/auth/me'));
      expect(answer.status).toBe(401);
      heldUpMs += ms;
    }
    expect(heldUpMs).toBeLessThan(1_000);
    redis.signal('SIGCONT');
    await until(async () => (await redisState(0)) === 'up', 'it is back', 40_000);
  });
});

describe('Redis that is full', { timeout: 120_000 }, () => {
  it('refuses writes: limits go on for each process, and the log says so once', async () => {
    // others may have said of the Redis that hung what is looked for here
    await Promise.all(backends.map((backend) => backend.stop()));
    await startBackends();
    await redis.ask((client) => client.config('SET', 'maxmemory', '1'));
    try {
      const answers = await guesses();
      expect(count(answers, 401)).toBe(10);
      expect(count(answers, 429)).toBe(50);
      for (const backend of backends) expect(backend.output().match(/Redis refused a command/g)).toHaveLength(1);
    } finally {
      await redis.ask((client) => client.config('SET', 'maxmemory', '0'));
    }
    expect(count(await countedGuesses(), 401)).toBe(5);
  });
});
