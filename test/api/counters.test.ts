/** The two stores of counters: what a process keeps for itself is what the scripts do in Redis. */
import fc from 'fast-check';
import { pino } from 'pino';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { readConfig } from '../../src/platform/config/config.js';
import type { CounterWindow } from '../../src/platform/rate-limits/counter-window.js';
import { Counters } from '../../src/platform/rate-limits/counters.js';
import { ProcessCounters } from '../../src/platform/rate-limits/process-counters.js';
import { RedisConnection } from '../../src/platform/redis/redis-connection.js';
import { SECRETS } from '../harness/backend.js';
import { OwnRedis, redisMissing } from '../harness/own-redis.js';
import { until } from '../harness/until.js';

const MISSING = redisMissing();

/** Of two keys, one has a small quota and the other one that is never reached by the first alone. */
const WINDOWS: CounterWindow[] = [
  { key: '{c}:a', quota: 2, seconds: 60 },
  { key: '{c}:b', quota: 5, seconds: 600 },
];
const windows = fc.subarray(WINDOWS, { minLength: 1 });
const step = fc.oneof(
  fc.record({ do: fc.constant('take' as const), windows }),
  fc.record({ do: fc.constant('giveBack' as const), windows }),
  fc.record({ do: fc.constant('clear' as const), windows }),
  fc.record({ do: fc.constant('mark' as const), windows }),
);

let redis: OwnRedis;
let connection: CountedConnection;

/** Counts what Redis did not answer in time, and was counted elsewhere for that. */
class CountedConnection extends RedisConnection {
  missed = 0;

  override async attempt<T extends {}>(work: Parameters<typeof RedisConnection.prototype.attempt<T>>[0]) {
    const answer = await super.attempt(work);
    if (answer === undefined) this.missed++;
    return answer;
  }
}

beforeAll(async () => {
  if (MISSING) return;
  redis = await OwnRedis.start();
  const config = readConfig({ ...SECRETS, DB_PASSWORD: 'x', ...redis.env });
  connection = new CountedConnection(config, pino({ level: 'silent' }));
  await until(() => connection.state === 'up', 'the connection');
});

afterAll(async () => {
  connection?.onApplicationShutdown();
  await redis?.stop();
});

describe('counters in Redis and in a process', () => {
  beforeEach((context) => {
    if (MISSING) context.skip(MISSING);
  });

  it('come to the same, whatever is taken, given back, cleared and marked', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), async (steps) => {
        await connection.attempt((client) => client.flushall());
        connection.missed = 0;
        const shared = new Counters(connection);
        const own = new ProcessCounters();
        for (const { do: what, windows: some } of steps) {
          const keys = some.map(({ key }) => key);
          // a run in which Redis was not there shows nothing of it
          fc.pre(connection.missed === 0);
          switch (what) {
            case 'take': {
              const [there, here] = [await shared.take(some), own.take(some)];
              fc.pre(connection.missed === 0);
              expect(there.granted).toBe(here.granted);
              expect(there.windows.map(({ left }) => left)).toEqual(here.windows.map(({ left }) => left));
              for (const [i, { resetMs }] of there.windows.entries())
                expect(Math.abs(resetMs - (here.windows[i]?.resetMs ?? 0))).toBeLessThan(2_000);
              break;
            }
            case 'giveBack':
              await shared.giveBack(some);
              own.giveBack(keys);
              break;
            case 'clear':
              await shared.clear(some);
              own.clear(keys);
              break;
            case 'mark':
              await shared.mark(`{c}:mark:${keys.length}`, 60);
              own.mark(`{c}:mark:${keys.length}`, 60);
          }
          const marked = await Promise.all([1, 2].map((n) => shared.isMarked(`{c}:mark:${n}`)));
          fc.pre(connection.missed === 0);
          expect(marked).toEqual([1, 2].map((n) => own.isMarked(`{c}:mark:${n}`)));
        }
      }),
      { numRuns: 60 },
    );
  });

  it('begin anew when a window ends, in both', async () => {
    const short = { key: '{d}:short', quota: 1, seconds: 1 };
    const long = { key: '{d}:long', quota: 2, seconds: 600 };
    const [shared, own] = [new Counters(connection), new ProcessCounters()];
    for (const take of [() => shared.take([short, long]), () => own.take([short, long])]) {
      expect((await take()).granted).toBe(true);
      const refused = await take();
      expect(refused).toMatchObject({ granted: false, windows: [{ left: 0 }, { left: 1 }] });
      expect(refused.windows[0]?.resetMs).toBeLessThanOrEqual(1_000);
      await until(async () => (await take()).granted, 'the short window has ended');
      expect((await take()).windows[1]?.left).toBe(0);
    }
    // and it was Redis that counted
    expect(await redis.ask((client) => client.get('bore:limit:{d}:long'))).toBe('2');
  });
});

describe('counters of a process', () => {
  it('are bounded: of more callers than it keeps, the oldest is forgotten', () => {
    const counters = new ProcessCounters();
    const take = (i: number) => counters.take([{ key: `k${i}`, quota: 1, seconds: 600 }]).granted;
    for (let i = 0; i < 100_000; i++) expect(take(i)).toBe(true);
    expect(take(0)).toBe(false);
    expect(take(100_000)).toBe(true);
    expect(take(99_999)).toBe(false);
    expect(take(0)).toBe(true);
  });
});
