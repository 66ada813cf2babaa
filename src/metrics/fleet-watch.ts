import { Inject, Injectable, type OnApplicationBootstrap, type OnApplicationShutdown } from '@nestjs/common';
import type { Logger } from 'pino';

import type { FleetFigures } from '../capacity/fleet-figures.js';
import { FleetFiguresRepository, type MeasuredFleet } from '../capacity/fleet-figures.repository.js';
import { LOGGER } from '../platform/logging/logger.js';

/** One row of one table, of each backend. */
const LOOK_INTERVAL_MS = 2_000;
/** A database that takes longer for it has an outage, as callers see it. Its answer is waited for all the same: looks never pile up. */
const PATIENCE_MS = 1_500;

/** Knows how full the fleet was last, and whether the database answers, so that no scrape asks or waits for it. */
@Injectable()
export class FleetWatch implements OnApplicationBootstrap, OnApplicationShutdown {
  private seen: (MeasuredFleet & { readonly at: number }) | undefined;
  private answers = false;
  private readonly beganAt = performance.now();
  private timer: NodeJS.Timeout | undefined;
  private stopped = false;

  constructor(
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly repository: FleetFiguresRepository,
  ) {}

  /** The first scrape should see something; a start does not wait longer for it than for any look. */
  async onApplicationBootstrap(): Promise<void> {
    const first = this.look();
    await Promise.race([first, new Promise((resolve) => setTimeout(resolve, PATIENCE_MS).unref())]);
  }

  onApplicationShutdown(): void {
    this.stopped = true;
    clearTimeout(this.timer);
  }

  /** Whether the database answered when it was asked last, and in time. */
  get databaseAnswers(): boolean {
    return this.answers;
  }

  /** `undefined`: the database is away, or nothing was measured yet. */
  get figures(): FleetFigures | undefined {
    return this.answers ? this.seen?.figures : undefined;
  }

  /** How old the figures are; of none, the time since the start. */
  get ageSeconds(): number {
    const { ageSeconds, at } = this.seen ?? { ageSeconds: 0, at: this.beganAt };
    return ageSeconds + (performance.now() - at) / 1000;
  }

  private async look(): Promise<void> {
    const late = setTimeout(() => this.lost('it does not answer in time'), PATIENCE_MS);
    try {
      const measured = await this.repository.read();
      if (measured) this.seen = { ...measured, at: performance.now() };
      this.answers = true;
    } catch (err) {
      this.lost(err instanceof Error ? err.message : String(err));
    } finally {
      clearTimeout(late);
    }
    if (!this.stopped) this.timer = setTimeout(() => void this.look(), LOOK_INTERVAL_MS).unref();
  }

  private lost(reason: string): void {
    if (this.answers) this.logger.warn({ reason }, 'metrics go on without the database');
    this.answers = false;
  }
}
