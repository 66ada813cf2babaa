import { setTimeout as delay } from 'node:timers/promises';

import type { ErrorCode } from '../platform/errors/error-register.js';
import { type EventFilter, type EventView, passes } from './event.js';
import type { EventFeed, Subscriber } from './event-feed.js';

/** Events read at once while catching up: what may wait in memory for one slow client, some 50 KB. */
const PAGE = 100;
/** Until the database is asked again when it could not answer. */
const RETRY_MS = 1_000;

/** A way out of this process, to one client. */
export interface EventOutlet {
  /** Hands an event on. False: enough for now, the client is slow; more when {@link drained}. */
  send(event: EventView): boolean;
  /** Tells the client that events up to `id` may be missing: it must read the state anew. */
  reset(id: number): void;
  /** Resolves with true when the client takes more; with false when it is gone, or was too slow and has been cut off. */
  drained(): Promise<boolean>;
  /** From time to time: shows both ends that the other is there. The client has everything up to `position`. */
  keepAlive(position: number): void;
  /** Says why, and closes. */
  end(code: ErrorCode): void;
  /** Resolves when it has closed, for whatever reason. */
  readonly gone: Promise<void>;
}

/**
 * What one client gets: its own events behind the one it has had last, in their order, each once. It first catches up from
 * the database, page by page and as fast as the client takes them, and then lives from what the feed has read for all. A
 * client that does not keep up goes back to catching up: no more waits for it in memory than one page.
 */
export class EventSubscription implements Subscriber {
  private live = false;
  private closed = false;

  /** @param id of the last event that the client has had */
  constructor(
    private readonly feed: EventFeed,
    readonly filter: EventFilter,
    private readonly outlet: EventOutlet,
    private id: number,
  ) {}

  /** The client has had everything up to this id. */
  get position(): number {
    return this.live ? Math.max(this.id, this.feed.position) : this.id;
  }

  /** Runs until the client has caught up for the first time, or is gone. */
  async catchUp(): Promise<void> {
    while (!this.closed && (await this.outlet.drained())) {
      const page = await this.feed.behind(this.filter, this.id, PAGE);
      if (!page) {
        await delay(RETRY_MS, undefined, { ref: false });
        continue;
      }
      // what comes next after `id` may have been forgotten, or the database is one that has never had `id`
      if (this.id < page.lowest - 1 || this.id > page.highest) {
        this.id = page.highest;
        this.outlet.reset(this.id);
        continue;
      }
      for (const event of page.events) {
        if (this.closed) return;
        this.id = Number(event.id);
        if (!this.outlet.send(event) && !(await this.outlet.drained())) return;
      }
      if (page.events.length === PAGE) continue;
      this.id = Math.max(this.id, page.highest);
      if (this.closed) return;
      this.live = this.feed.join(this, this.id);
      if (this.live) return;
    }
  }

  /** The next event of this user, from the feed. */
  offer(event: EventView): void {
    const id = Number(event.id);
    if (!this.live || id <= this.id) return;
    this.id = id;
    if (passes(this.filter, event) && !this.outlet.send(event)) this.restart();
  }

  restart(): void {
    this.leave();
    void this.catchUp();
  }

  close(): void {
    this.closed = true;
    this.leave();
  }

  private leave(): void {
    this.live = false;
    this.feed.leave(this);
  }
}
