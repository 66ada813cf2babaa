import { setTimeout } from 'node:timers/promises';

import { Injectable } from '@nestjs/common';

import { CapacityService } from '../capacity/capacity.service.js';
import { RedisConnection } from '../platform/redis/redis-connection.js';
import { type Sighting, type StatusView, viewStatus } from './status.js';
import { StatusRepository } from './status.repository.js';

/** However many ask, each backend looks at the store so often; what they are told is as old at most. */
const LOOK_INTERVAL_MS = 10_000;
/** After a look that came to nothing: the end of an outage is seen soon. */
const RETRY_INTERVAL_MS = 2_000;
/** A status page waits for a second. A look that takes longer goes on, and nobody waits for it any more. */
const ANSWER_MS = 500;

/** How the platform is as a whole. Says so also when the store does not answer. */
@Injectable()
export class StatusService {
  private sighting: Sighting | undefined;
  private answers = true;
  /** One at a time: a store that hangs holds one connection of the pool, and not one for each who asks. */
  private looking: Promise<void> | undefined;
  private lookBegan = 0;
  private nextLookAt = 0;

  constructor(
    private readonly repository: StatusRepository,
    private readonly capacity: CapacityService,
    private readonly redis: RedisConnection,
  ) {}

  /** The status, and for how many seconds it may be kept. */
  async show(): Promise<{ view: StatusView; maxAgeSeconds: number }> {
    if (performance.now() >= this.nextLookAt) {
      this.looking ??= this.look().finally(() => (this.looking = undefined));
      const waitMs = Math.max(0, this.lookBegan + ANSWER_MS - performance.now());
      const late = setTimeout(waitMs, 'late' as const, { ref: false });
      if ((await Promise.race([this.looking, late])) === 'late') this.answers = false;
    }
    const seconds = (this.answers ? LOOK_INTERVAL_MS : RETRY_INTERVAL_MS) / 1000;
    return { view: viewStatus(this.sighting, this.answers, this.redis.state), maxAgeSeconds: seconds };
  }

  /** Never fails. */
  private async look(): Promise<void> {
    this.lookBegan = performance.now();
    try {
      // one after the other: see above
      const locations = await this.repository.locations();
      const overdue = await this.repository.overdue();
      const { free } = await this.capacity.show();
      this.sighting = { at: new Date(), locations, free, overdue };
      this.answers = true;
    } catch {
      // whoever needs the database for more than this tells of its absence in the log
      this.answers = false;
    }
    this.nextLookAt = performance.now() + (this.answers ? LOOK_INTERVAL_MS : RETRY_INTERVAL_MS);
  }
}
