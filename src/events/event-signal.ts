import { Inject, Injectable, type OnApplicationBootstrap, type OnApplicationShutdown } from '@nestjs/common';
import type { FastifyInstance } from 'fastify';
import type { Logger } from 'pino';

import { CONFIG, type Config } from '../platform/config/config.js';
import { LOGGER } from '../platform/logging/logger.js';
import { RedisConnection } from '../platform/redis/redis-connection.js';
import { PostgresHints } from './postgres-hints.js';
import { RedisHints } from './redis-hints.js';

/** Brings hints from all backends to all. */
export interface Hints {
  /** This backend may have made a change. */
  announce(): void;
  stop(): void;
}

const READ_ONLY = new Set(['GET', 'HEAD', 'OPTIONS']);

/**
 * Says that events may have been written, by any backend: over Redis where there is one, else by PostgreSQL's NOTIFY. A hint
 * to look and no more, so that one which is lost, doubled or false does no harm; what reads events also looks by itself.
 */
@Injectable()
export class EventSignal implements OnApplicationBootstrap, OnApplicationShutdown {
  private hints: Hints | undefined;
  private listener: () => void = () => undefined;

  constructor(
    @Inject(CONFIG) private readonly config: Config,
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly redis: RedisConnection,
  ) {}

  onApplicationBootstrap(): void {
    const onHint = () => this.listener();
    this.hints = this.config.REDIS_ENABLED
      ? new RedisHints(this.config, this.redis, onHint)
      : new PostgresHints(this.config, this.logger, onHint);
  }

  onApplicationShutdown(): void {
    this.hints?.stop();
  }

  /** Calls `listener` with every hint. */
  onHint(listener: () => void): void {
    this.listener = listener;
  }

  /**
   * Announces every request that may have changed something, once it is answered: its transaction is over then. What jobs
   * change is found by those who look by themselves.
   */
  install(server: FastifyInstance): void {
    server.addHook('onResponse', async (request, reply) => {
      if (!READ_ONLY.has(request.method) && reply.statusCode < 400) this.hints?.announce();
    });
  }
}
