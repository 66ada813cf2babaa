import { Inject, Injectable, type OnApplicationBootstrap, type OnApplicationShutdown } from '@nestjs/common';
import type { Logger } from 'pino';
import { z } from 'zod';

import { LogLevelName } from '../../protocol/plane-api.js';
import { CONFIG, type Config } from '../config/config.js';
import { Database } from '../database/database.js';
import { Prisma } from '../database/generated/client.js';
import { LOGGER } from './logger.js';

/** One statement on a table of one row, of each backend: a change is everywhere within three seconds. */
const INTERVAL_MS = 2_000;

const Row = z.object({ level: LogLevelName, until: z.date(), secondsLeft: z.number() });

/** What is logged for a time in place of what was configured. */
export interface LevelForATime {
  readonly level: LogLevelName;
  readonly until: Date;
}

/**
 * Logs as much as the row in the database says, until its time is over, and then again as much as LOG_LEVEL. All backends
 * read the same row, so it does not matter which one was told, nor which are killed and started meanwhile.
 */
@Injectable()
export class LiveLogLevel implements OnApplicationBootstrap, OnApplicationShutdown {
  private forATime: (LevelForATime & { readonly endsAt: number }) | undefined;
  /** Reads begun, and which of them was applied last: one that began before it knows less, though it ends later. */
  private readonly reads = { begun: 0, applied: 0 };
  private timer: NodeJS.Timeout | undefined;
  private stopped = false;

  constructor(
    @Inject(CONFIG) private readonly config: Config,
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly database: Database,
  ) {}

  onApplicationBootstrap(): void {
    void this.run();
  }

  onApplicationShutdown(): void {
    this.stopped = true;
    clearTimeout(this.timer);
  }

  /** What counts now in place of LOG_LEVEL; undefined: nothing does. */
  get current(): LevelForATime | undefined {
    return this.forATime && performance.now() < this.forATime.endsAt ? this.forATime : undefined;
  }

  /** Reads the row now. Whoever has changed it calls this, so that its own backend need not wait. */
  async read(): Promise<void> {
    const turn = ++this.reads.begun;
    const [row] = await this.database.rows(
      Row,
      Prisma.sql`
        SELECT level, until, extract(epoch FROM until - now())::float AS "secondsLeft" FROM log_level WHERE until > now()`,
    );
    if (turn < this.reads.applied) return;
    this.reads.applied = turn;
    // by the database's clock, and from now on by ours: an outage does not make it longer
    this.forATime = row && { ...row, endsAt: performance.now() + row.secondsLeft * 1000 };
    this.apply();
  }

  private apply(): void {
    const level = this.current?.level ?? this.config.LOG_LEVEL;
    if (level === this.logger.level) return;
    // said at whichever of the two lets it through
    if (!this.logger.isLevelEnabled('info')) this.logger.level = level;
    this.logger.info({ logLevel: level }, 'log level changed');
    this.logger.level = level;
  }

  private async run(): Promise<void> {
    try {
      await this.read();
    } catch {
      // who needs the database tells of its absence; what was read last counts until its time is over
      this.apply();
    }
    if (!this.stopped) this.timer = setTimeout(() => void this.run(), INTERVAL_MS).unref();
  }
}
