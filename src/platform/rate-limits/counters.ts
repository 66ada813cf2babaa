import { EventEmitter } from 'node:events';

import { Injectable } from '@nestjs/common';
import { z } from 'zod';

import { RedisConnection } from '../redis/redis-connection.js';
import type { CounterWindow, Taken } from './counter-window.js';
import { GIVE_BACK, TAKE_ALL_OR_NONE } from './counters.lua.js';
import { ProcessCounters } from './process-counters.js';

/** Limits that callers may meet: by address, by account that calls, at single routes, and of guesses at one account. */
export const LIMIT_NAMES = ['address', 'office', 'user', 'signup', 'login', 'refresh', 'password', 'account'] as const;
export type LimitName = (typeof LIMIT_NAMES)[number];

const PREFIX = 'bore:limit:';

const TakeAnswer = z.array(z.int()).min(1);

/**
 * Counts what callers do, over all backends by Redis. Without Redis, or while it is away, each process counts for itself:
 * limits are wider then, by as many times as there are processes, and never gone.
 */
@Injectable()
export class Counters {
  /** Tells of each request that was refused because a limit was reached. */
  readonly refusals = new EventEmitter<{ refused: [LimitName] }>();
  private readonly own = new ProcessCounters();

  constructor(private readonly redis: RedisConnection) {}

  /** Takes one from every window, or from none of them: of parallel callers, as many get one as there were left. */
  async take(windows: readonly CounterWindow[]): Promise<Taken> {
    const shared = await this.redis.attempt(async (redis) => {
      const keys = windows.map(({ key }) => PREFIX + key);
      const limits = windows.flatMap(({ quota, seconds }) => [quota, seconds * 1000]);
      const [granted, ...figures] = TakeAnswer.parse(
        await redis.eval(TAKE_ALL_OR_NONE, keys.length, ...keys, ...limits),
      );
      return {
        granted: granted === 1,
        windows: windows.map((_, i) => ({ left: figures[2 * i] ?? 0, resetMs: figures[2 * i + 1] ?? 0 })),
      };
    });
    return shared ?? this.own.take(windows);
  }

  /** Gives one back to each: it was not what is counted here after all. */
  async giveBack(windows: readonly Pick<CounterWindow, 'key'>[]): Promise<void> {
    if (windows.length === 0) return;
    const names = windows.map(({ key }) => PREFIX + key);
    const shared = await this.redis.attempt((redis) => redis.eval(GIVE_BACK, names.length, ...names).then(() => true));
    if (!shared) this.own.giveBack(windows.map(({ key }) => key));
  }

  /** Begins anew. */
  async clear(windows: readonly Pick<CounterWindow, 'key'>[]): Promise<void> {
    // also here: what was counted while Redis was away
    this.own.clear(windows.map(({ key }) => key));
    await this.redis.attempt((redis) => redis.del(...windows.map(({ key }) => PREFIX + key)));
  }

  /** Remembers `key` for a time. */
  async mark(key: string, seconds: number): Promise<void> {
    const shared = await this.redis.attempt((redis) => redis.set(PREFIX + key, '1', 'EX', seconds));
    if (!shared) this.own.mark(key, seconds);
  }

  /** Whether `key` was marked, and its time is not over. */
  async isMarked(key: string): Promise<boolean> {
    const shared = await this.redis.attempt((redis) => redis.exists(PREFIX + key));
    return shared === undefined ? this.own.isMarked(key) : shared > 0;
  }
}
