import { randomUUID } from 'node:crypto';

import { Inject, Injectable, type OnApplicationBootstrap, type OnApplicationShutdown } from '@nestjs/common';
import type { Logger } from 'pino';

import { LOGGER } from '../platform/logging/logger.js';
import { BoreServerClient } from './bore-server-client.js';
import { BreakerViewsRepository } from './breaker-views.repository.js';

/** One small statement a second of each backend: an administrator's reset is everywhere within two. */
const INTERVAL_MS = 1_000;

/**
 * Tells the other backends, by way of the database, what this one's circuit breakers are like, and closes those that an
 * administrator wants closed. Hears where servers are that it did not reach: they may have moved. Calls never wait for it: each
 * backend decides by its own breakers.
 */
@Injectable()
export class BreakerExchange implements OnApplicationBootstrap, OnApplicationShutdown {
  private readonly backendId = randomUUID();
  private timer: NodeJS.Timeout | undefined;
  private failing = false;
  private stopped = false;

  constructor(
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly boreServers: BoreServerClient,
    private readonly views: BreakerViewsRepository,
  ) {}

  onApplicationBootstrap(): void {
    void this.run();
  }

  onApplicationShutdown(): void {
    this.stopped = true;
    clearTimeout(this.timer);
  }

  /** Never fails: without the database, resets wait, and so does what others see. */
  private async run(): Promise<void> {
    try {
      for (const answer of await this.views.exchange(this.backendId, this.boreServers.breakerStates())) {
        if (answer.kind === 'reset') this.boreServers.resetBreaker(answer.serverId);
        else if (answer.kind === 'deleted') this.boreServers.forgetBreaker(answer.serverId);
        else this.boreServers.tryAt(answer.serverId, answer.adminUrl);
      }
      this.failing = false;
    } catch (err) {
      // once for an outage, and not every second
      if (!this.failing && !this.stopped) this.logger.warn({ err }, 'circuit breakers could not be shared');
      this.failing = true;
    }
    // the next one is due a second after this one's end: they never overlap
    if (!this.stopped) this.timer = setTimeout(() => void this.run(), INTERVAL_MS);
  }
}
