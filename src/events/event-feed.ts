import { setTimeout as delay } from 'node:timers/promises';

import { Inject, Injectable, type OnApplicationBootstrap, type OnApplicationShutdown } from '@nestjs/common';
import pLimit from 'p-limit';
import type { Logger } from 'pino';

import { LOGGER } from '../platform/logging/logger.js';
import type { EventFilter, EventView } from './event.js';
import { EventSignal } from './event-signal.js';
import { EventsRepository, type Replay } from './events.repository.js';

/** Hints may be lost, as with Redis: how late an event can then be. */
const POLL_MS = 1_000;
/** However many hints there are, this backend asks the database fifty times a second at most. */
const PAUSE_MS = 20;
/** Events in memory at once, some 500 bytes each; more come with the next statement. */
const BATCH = 500;
/** Of the pool's connections: thousands that come back at once must not keep requests waiting. */
const REPLAYS_AT_ONCE = 2;

/** Who wants events as they come. */
export interface Subscriber {
  readonly filter: EventFilter;
  /** The next event of its user. */
  offer(event: EventView): void;
  /** The database has gone back behind what was offered: it joins anew. */
  restart(): void;
}

/**
 * Reads the outbox for every subscriber of this backend at once: one statement whenever there may be something new,
 * however many they are. Each backend reads for itself; so it does not matter which one made a change, and none depends
 * on another.
 */
@Injectable()
export class EventFeed implements OnApplicationBootstrap, OnApplicationShutdown {
  /** By user, those that have caught up. */
  private readonly live = new Map<string, Set<Subscriber>>();
  /** All events up to this id have been offered to all who are live. */
  private reached = 0;
  private looking = false;
  private lookAgain = false;
  private failing = false;
  private lookedAt = performance.now();
  private readonly replays = pLimit(REPLAYS_AT_ONCE);
  private poll: NodeJS.Timeout | undefined;

  constructor(
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly events: EventsRepository,
    private readonly signal: EventSignal,
  ) {}

  onApplicationBootstrap(): void {
    this.signal.onHint(() => this.look());
    this.poll = setInterval(() => this.look(), POLL_MS).unref();
  }

  onApplicationShutdown(): void {
    clearInterval(this.poll);
  }

  /** The id up to which subscribers that are live have everything. */
  get position(): number {
    return this.reached;
  }

  /** How old what subscribers know may be, in seconds: the time since the outbox was last read to its end. */
  get lagSeconds(): number {
    return this.live.size === 0 ? 0 : (performance.now() - this.lookedAt) / 1000;
  }

  /** Reads what is new. Whoever hears that there may be something calls this, as often as it likes. */
  look(): void {
    this.lookAgain = true;
    if (!this.looking) void this.lookUntilDone();
  }

  /** What one subscriber has not had; null when the database cannot say now. */
  async behind(filter: EventFilter, id: number, limit: number): Promise<Replay | null> {
    try {
      return await this.replays(() => this.events.replay(filter, id, limit));
    } catch (err) {
      this.failed(err);
      return null;
    }
  }

  /** Offers a subscriber that has everything up to `id` what comes next. False: the feed is further, catch up once more. */
  join(subscriber: Subscriber, id: number): boolean {
    const first = this.live.size === 0;
    if (!first && this.reached > id) return false;
    const { userId } = subscriber.filter;
    this.live.set(userId, (this.live.get(userId) ?? new Set()).add(subscriber));
    if (first) {
      this.reached = id;
      this.lookedAt = performance.now();
      this.look();
    }
    return true;
  }

  leave(subscriber: Subscriber): void {
    const { userId } = subscriber.filter;
    const subscribers = this.live.get(userId);
    subscribers?.delete(subscriber);
    if (subscribers?.size === 0) this.live.delete(userId);
  }

  private async lookUntilDone(): Promise<void> {
    this.looking = true;
    try {
      while (this.lookAgain && this.live.size > 0) {
        this.lookAgain = false;
        const from = this.reached;
        const { highest, events } = await this.events.after(from, BATCH);
        // meanwhile the last subscriber has left and a first one has come, who may have had less: these are not its next ones
        if (this.reached !== from) {
          this.lookAgain = true;
          continue;
        }
        // a backup was restored, or a replica promoted that had not got everything
        if (highest < from) {
          this.logger.warn({ from, highest }, 'events are missing in the database: streams begin anew');
          this.reached = highest;
          for (const subscriber of [...this.live.values()].flatMap((each) => [...each])) subscriber.restart();
          continue;
        }
        for (const { userId, ...event } of events) {
          for (const subscriber of this.live.get(userId) ?? []) subscriber.offer(event);
          this.reached = Number(event.id);
        }
        this.failing = false;
        if (events.length === BATCH) {
          this.lookAgain = true;
          continue;
        }
        this.lookedAt = performance.now();
        await delay(PAUSE_MS, undefined, { ref: false });
      }
    } catch (err) {
      // the rows are still there, and the next look finds them
      this.failed(err);
    } finally {
      this.looking = false;
    }
  }

  private failed(err: unknown): void {
    this.logger[this.failing ? 'debug' : 'warn']({ err }, 'events could not be read');
    this.failing = true;
  }
}
