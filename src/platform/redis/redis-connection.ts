import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import type { Logger } from 'pino';

import { CONFIG, type Config } from '../config/config.js';
import { LOGGER } from '../logging/logger.js';
import { traceRedis } from '../tracing/redis-spans.js';
import { createRedisClient, type RedisClient } from './redis-client.js';

/** Commands that fail on a connection that stands (out of memory, a fail-over) are told of once in this time. */
const FAILURE_LOG_INTERVAL_MS = 60_000;

/**
 * The process's connection to Redis. Redis is shared, fast and losable: whoever uses it can do without it, so nothing here
 * throws, waits for it at start, or queues. All our keys begin with `bore:`.
 */
@Injectable()
export class RedisConnection implements OnApplicationShutdown {
  private readonly client: RedisClient | undefined;
  /** What was logged last; unknown before the first attempt has ended. */
  private reachable: boolean | undefined;
  private lastReason: string | undefined;
  private nextFailureLogAt = 0;

  constructor(
    @Inject(CONFIG) config: Config,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {
    if (!config.REDIS_ENABLED) return;
    traceRedis();
    this.client = createRedisClient(config);
    this.client.on('ready', () => this.noticed(true));
    this.client.on('close', () => this.noticed(false));
    // comes before `close`, which tells of it. Of an error only the message: it carries the command, and that may be AUTH
    this.client.on('error', (error: Error) => (this.lastReason = error.message));
  }

  /** `disabled` by REDIS_ENABLED; `down` while there is no connection. */
  get state(): 'disabled' | 'up' | 'down' {
    if (!this.client) return 'disabled';
    return this.client.status === 'ready' ? 'up' : 'down';
  }

  /** What `work` came to, or `undefined` when Redis is not there or did not do it. It may have done it all the same. */
  async attempt<T extends {}>(work: (client: RedisClient) => Promise<T>): Promise<T | undefined> {
    if (this.client?.status !== 'ready') return undefined;
    try {
      return await work(this.client);
    } catch (err) {
      this.failed(err);
      return undefined;
    }
  }

  onApplicationShutdown(): void {
    this.client?.removeAllListeners('close');
    this.client?.disconnect();
  }

  private noticed(reachable: boolean): void {
    if (reachable === this.reachable) return;
    this.reachable = reachable;
    if (reachable) this.logger.info('Redis is reachable');
    else this.logger.warn({ reason: this.lastReason }, 'Redis is not reachable: going on without it');
    this.lastReason = undefined;
  }

  private failed(err: unknown): void {
    if (this.state !== 'up' || Date.now() < this.nextFailureLogAt) return;
    this.nextFailureLogAt = Date.now() + FAILURE_LOG_INTERVAL_MS;
    this.logger.warn(
      { reason: err instanceof Error ? err.message : String(err) },
      'Redis refused a command: going on without it',
    );
  }
}
