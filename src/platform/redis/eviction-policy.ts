import { Inject, Injectable, type OnApplicationBootstrap, type OnApplicationShutdown } from '@nestjs/common';
import { Cluster } from 'ioredis';
import type { Logger } from 'pino';

import { LOGGER } from '../logging/logger.js';
import type { RedisClient } from './redis-client.js';
import { RedisConnection } from './redis-connection.js';

/** The one policy under which a full Redis refuses to take more, instead of forgetting limits and jobs. */
export const NOEVICTION = 'noeviction';
/** A setting that an operator changes by hand; `INFO memory` costs nothing. */
const LOOK_INTERVAL_MS = 5_000;

/** Watches over Redis's `maxmemory-policy`, of every master in a cluster. */
@Injectable()
export class EvictionPolicy implements OnApplicationBootstrap, OnApplicationShutdown {
  private timer: NodeJS.Timeout | undefined;
  /** The policy found last where it is the wrong one. */
  private found: string | undefined;

  constructor(
    private readonly redis: RedisConnection,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /** What is wrong with it, for people; `undefined`: nothing that is known of. */
  get complaint(): string | undefined {
    return this.found && `maxmemory-policy is ${this.found} and must be ${NOEVICTION}`;
  }

  onApplicationBootstrap(): void {
    if (this.redis.state === 'disabled') return;
    this.timer = setInterval(() => void this.look(), LOOK_INTERVAL_MS).unref();
    void this.look();
  }

  onApplicationShutdown(): void {
    clearInterval(this.timer);
  }

  private async look(): Promise<void> {
    const policies = await this.redis.attempt(policiesOf);
    if (!policies) return;
    const wrong = policies.find((policy) => policy !== NOEVICTION);
    if (wrong === this.found) return;
    this.found = wrong;
    if (wrong === undefined) this.logger.info(`Redis has maxmemory-policy ${NOEVICTION} now`);
    else this.logger.warn(`Redis: ${this.complaint}, or it forgets limits and jobs when its memory is full`);
  }
}

/** From INFO, because many services forbid CONFIG; a proxy that leaves the line out has nothing to complain about. */
export async function policiesOf(client: RedisClient): Promise<string[]> {
  const nodes = client instanceof Cluster ? client.nodes('master') : [client];
  const answers = await Promise.all(nodes.map((node) => node.info('memory')));
  return answers.flatMap((answer) => /^maxmemory_policy:(\S+)/m.exec(answer)?.[1] ?? []);
}
