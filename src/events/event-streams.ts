import { type BeforeApplicationShutdown, Inject, Injectable, type OnApplicationBootstrap } from '@nestjs/common';
import type { Logger } from 'pino';

import { CONFIG, type Config } from '../platform/config/config.js';
import { PlatformError } from '../platform/errors/error-register.js';
import { Callers } from '../platform/http/callers.js';
import type { Caller } from '../platform/http/route-metadata.js';
import { LOGGER } from '../platform/logging/logger.js';
import type { EventFilter } from './event.js';
import { EventFeed } from './event-feed.js';
import { type EventOutlet, EventSubscription } from './event-subscription.js';
import { EventsRepository } from './events.repository.js';

/** Proxies close what is silent: nginx after 60 s, others after 30. */
const KEEP_ALIVE_MS = 10_000;
/** How long a stream may outlive its login or key: this, and the time of one statement. */
const CALLER_CHECK_MS = 5_000;
/** Of an event, as far as a JavaScript number goes. */
const EVENT_ID = /^\d{1,15}$/;
/** Others close their streams meanwhile, or another backend has room. */
const FULL_RETRY_SECONDS = 5;

/** Where a stream begins. */
export interface StreamStart {
  /** False: the client goes on behind what it has had. */
  readonly fresh: boolean;
  /** The client has had, or does not want, everything up to this id. */
  readonly id: number;
}

interface OpenStream {
  readonly caller: Caller;
  readonly outlet: EventOutlet;
  readonly subscription: EventSubscription;
}

/** The streams that this backend carries, of either kind: how many, whose, and until when. */
@Injectable()
export class EventStreams implements OnApplicationBootstrap, BeforeApplicationShutdown {
  private readonly open = new Set<OpenStream>();
  /** Streams that are open or being opened, by user. */
  private readonly counts = new Map<string, number>();
  private total = 0;
  private closing = false;
  private timers: NodeJS.Timeout[] = [];

  constructor(
    @Inject(CONFIG) private readonly config: Config,
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly callers: Callers,
    private readonly events: EventsRepository,
    private readonly feed: EventFeed,
  ) {}

  /** Streams that are open, or being opened. */
  get count(): number {
    return this.total;
  }

  onApplicationBootstrap(): void {
    this.timers = [
      setInterval(() => this.keepAlive(), KEEP_ALIVE_MS).unref(),
      setInterval(() => void this.endStale(), CALLER_CHECK_MS).unref(),
    ];
  }

  /** Before the server stops: it would wait for streams, which have no end of their own. Clients go on at another backend. */
  beforeApplicationShutdown(): void {
    this.closing = true;
    this.timers.forEach(clearInterval);
    for (const { outlet } of this.open) outlet.end('UNAVAILABLE');
  }

  /**
   * Begins a stream.
   * @param lastEventId what the client says that it has had; undefined: it wants what comes from now on
   * @param connect makes the way out, when it is clear that there will be a stream
   * @throws PlatformError TOO_MANY_STREAMS, UNAVAILABLE
   */
  async begin(
    caller: Caller,
    filter: EventFilter,
    lastEventId: string | undefined,
    connect: (start: StreamStart) => EventOutlet,
  ): Promise<void> {
    this.take(caller.userId);
    let stream: OpenStream;
    try {
      const start = await this.startOf(lastEventId);
      const outlet = connect(start);
      stream = { caller, outlet, subscription: new EventSubscription(this.feed, filter, outlet, start.id) };
    } catch (error) {
      this.giveBack(caller.userId);
      throw error;
    }
    this.open.add(stream);
    void stream.outlet.gone.then(() => {
      stream.subscription.close();
      this.open.delete(stream);
      this.giveBack(caller.userId);
    });
    // not refused: a browser comes back to a stream that ends, and not to one that never was
    if (this.closing) stream.outlet.end('UNAVAILABLE');
    else void stream.subscription.catchUp();
  }

  /** @throws PlatformError TOO_MANY_STREAMS, UNAVAILABLE when one more of this user would be refused now */
  check(userId: string): void {
    if (this.total >= this.config.EVENT_STREAMS_MAX) {
      throw new PlatformError('UNAVAILABLE', {
        detail: 'This backend carries as many event streams as it may',
        retryAfter: FULL_RETRY_SECONDS,
      });
    }
    if ((this.counts.get(userId) ?? 0) >= this.config.EVENT_STREAMS_PER_USER_MAX) {
      throw new PlatformError('TOO_MANY_STREAMS', { retryAfter: FULL_RETRY_SECONDS });
    }
  }

  private take(userId: string): void {
    this.check(userId);
    this.total += 1;
    this.counts.set(userId, (this.counts.get(userId) ?? 0) + 1);
  }

  private giveBack(userId: string): void {
    this.total -= 1;
    const left = (this.counts.get(userId) ?? 0) - 1;
    if (left > 0) this.counts.set(userId, left);
    else this.counts.delete(userId);
  }

  /** What is no number of ours is below all: the subscription finds that it is not known. */
  private async startOf(lastEventId: string | undefined): Promise<StreamStart> {
    if (lastEventId === undefined) return { fresh: true, id: await this.events.highest() };
    return { fresh: false, id: EVENT_ID.test(lastEventId) ? Number(lastEventId) : -1 };
  }

  private keepAlive(): void {
    for (const { outlet, subscription } of this.open) outlet.keepAlive(subscription.position);
  }

  /** Ends the streams of those who have logged out, whose key was revoked or who are suspended. */
  private async endStale(): Promise<void> {
    if (this.open.size === 0) return;
    const streams = [...this.open];
    try {
      const valid = await this.callers.stillValid(streams.map(({ caller }) => caller));
      for (const { caller, outlet } of streams) if (!valid.has(caller)) outlet.end('UNAUTHENTICATED');
    } catch (err) {
      // nobody can log in or out while the database is away, and no events come
      this.logger.warn({ err }, 'callers of event streams could not be checked');
    }
  }
}
