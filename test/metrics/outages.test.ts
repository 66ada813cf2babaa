/** A scrape is answered at once, whatever does not answer the backend; and says what that is. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { expectAtBest } from '../harness/at-best.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { heldUp } from '../harness/held-up.js';
import { type Scrape, scrape } from '../harness/metrics.js';
import { OwnPostgres } from '../harness/own-postgres.js';
import { OwnRedis, redisMissing } from '../harness/own-redis.js';
import { until } from '../harness/until.js';

/** How much longer than a request that looks at nothing; Prometheus may wait for 10 s. */
const ANSWER_MS = 2_000;
/** Until an outage, or its end, is seen: looks are 5 s apart at most, and one that hangs ends within 15 s. */
const SEEN_MS = 30_000;
const POOL = 4;

let postgres: OwnPostgres;
let redis: OwnRedis | undefined;
let backend: Backend;
let user: Api;

beforeAll(async () => {
  postgres = await OwnPostgres.start();
  redis = redisMissing() === undefined ? await OwnRedis.start() : undefined;
  const env = { ...redis?.env, DB_POOL_SIZE: String(POOL), HOUSEKEEPING_INTERVAL_MS: '200' };
  backend = await startBackend({ database: postgres, env });
  const login = { email: 'a@example.com', password: 'correct horse battery' };
  const { body } = await new Api(backend.url).post('/api/v1/auth/signup', login);
  user = new Api(backend.url).withToken(body.accessToken);
});

afterAll(async () => {
  await backend?.stop();
  await redis?.stop();
  await postgres?.drop();
});

/** A scrape that came in time: one that waits for what is silent is late each time. */
async function quickScrape(): Promise<Scrape> {
  const scrapes: Scrape[] = [];
  await expectAtBest(ANSWER_MS, async () => {
    const { answer, ms } = await heldUp(backend.url, () => scrape(backend.url));
    scrapes.unshift(answer);
    return ms;
  });
  const [last] = scrapes;
  if (!last) throw new Error('there was no scrape');
  return last;
}
const shows = (what: string, condition: (at: Scrape) => boolean) =>
  until(
    async () => {
      const at = await quickScrape();
      return condition(at) ? at : undefined;
    },
    what,
    SEEN_MS,
  );
const isWell = (at: Scrape) =>
  at.value('bore_database_up') === 1 &&
  at.value('bore_queue_up', { queue: 'housekeeping' }) === 1 &&
  (at.value('bore_fleet_sample_age_seconds') ?? 99) < 5 &&
  at.value('bore_capacity_total') !== undefined;

describe('a scrape', () => {
  it('shows a PostgreSQL that is silent, and how old the figures get', async () => {
    await shows('all is well', isWell);
    await postgres.freeze();
    const down = await shows('the database is down', (at) => at.value('bore_database_up') === 0);
    // unknown, and not zero
    for (const name of ['bore_capacity_total', 'bore_tunnels', 'bore_servers', 'bore_capacity_utilization_percent'])
      expect(down.all(name), name).toEqual([]);
    const age = down.value('bore_fleet_sample_age_seconds') ?? 0;
    await shows('the figures get old', (at) => (at.value('bore_fleet_sample_age_seconds') ?? 0) > age + 3);
    await postgres.thaw();
    await shows('all is well again', isWell);
  });

  it('shows a PostgreSQL that is gone', async () => {
    await postgres.kill9();
    await shows('the database is down', (at) => at.value('bore_database_up') === 0);
    await postgres.startAgain();
    await shows('all is well again', isWell);
  });

  it('shows a Redis that is silent', async (context) => {
    if (!redis) return context.skip(redisMissing() ?? '');
    const well = await shows('all is well', (at) => isWell(at) && at.value('bore_redis_up') === 1);
    // of features, of events, and three of each queue
    expect(well.value('bore_redis_connections', { state: 'ready' })).toBe(8);
    redis.signal('SIGSTOP');
    await shows('the queue is down', (at) => at.value('bore_queue_up', { queue: 'housekeeping' }) === 0);
    const down = await shows('Redis is down', (at) => at.value('bore_redis_up') === 0);
    expect(down.value('bore_queue_up', { queue: 'housekeeping' })).toBe(0);
    expect(down.all('bore_queue_jobs')).toEqual([]);
    expect(down.value('bore_database_up')).toBe(1);
    expect(down.value('bore_redis_connections', { state: 'other' })).toBeGreaterThan(0);
    redis.signal('SIGCONT');
    await shows('all is well again', (at) => isWell(at) && at.value('bore_redis_up') === 1);
  });
});

describe('the pool', () => {
  it('shows that all its connections are taken, and who waits for how long', async () => {
    await shows('all is well', isWell);
    const lock = await postgres.hold('BEGIN', 'SELECT lock_capacity()');
    const requests = Array.from({ length: 3 * POOL }, () => user.post('/api/v1/tunnels', {}));
    const full = await shows(
      'callers wait',
      (at) => (at.value('bore_database_pool_waiting', { pool: 'primary' }) ?? 0) > 0,
    );
    expect(full.value('bore_database_pool_max', { pool: 'primary' })).toBe(POOL);
    const connections = (state: string) => full.value('bore_database_pool_connections', { pool: 'primary', state });
    expect([connections('used'), connections('idle')]).toEqual([POOL, 0]);
    const waited = (at: Scrape) => at.value('bore_database_pool_wait_seconds_sum', { pool: 'primary' }) ?? 0;
    await lock.release();
    await Promise.all(requests);
    const after = await shows(
      'nobody waits',
      (at) => at.value('bore_database_pool_waiting', { pool: 'primary' }) === 0,
    );
    expect(waited(after)).toBeGreaterThan(waited(full));
    expect(after.value('bore_database_pool_wait_seconds_count', { pool: 'primary' })).toBeGreaterThan(3 * POOL);
  });

  it('is held up, and so are the jobs that wait behind one: how long is shown', async () => {
    const waited = (at: Scrape) => at.value('bore_queue_oldest_waiting_seconds', { queue: 'housekeeping' }) ?? NaN;
    await shows('no job waits', (at) => isWell(at) && waited(at) < 1);
    const lock = await postgres.hold('BEGIN', 'LOCK TABLE tunnels IN ACCESS EXCLUSIVE MODE');
    try {
      const waiting = { queue: 'housekeeping', state: 'waiting' };
      await shows('jobs wait', (at) => waited(at) > 1 && (at.value('bore_queue_jobs', waiting) ?? 0) > 0);
    } finally {
      await lock.release();
    }
    await shows('they are done', (at) => waited(at) < 1);
  });
});
