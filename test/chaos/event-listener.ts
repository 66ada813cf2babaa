import type { Api } from '../harness/api.js';
import { EventStream } from '../harness/event-stream.js';
import { Outage } from './outage.js';

/** A stream that says nothing for so long, not even a comment, is dead: it says one every 15 s. */
const SILENCE_MS = 25_000;
/** Until one that has ended is opened again: what the stream itself asks for is longer. */
const RETURN_MS = 200;
/** How often it looks whether its stream still lives. */
const LOOK_MS = 250;

/** Listens as a browser does: whenever its stream ends it opens another, from the last event that it has seen. */
export class EventListener {
  private readonly ids: string[] = [];
  private readonly outage = new Outage();
  private isLeaving = false;
  private running: Promise<void> = Promise.resolve();
  private streams = 0;

  constructor(private readonly api: Api) {}

  start(): void {
    this.running = this.run();
  }

  /** The ids of all events that it was told, in order. */
  get received(): readonly string[] {
    return this.ids;
  }

  /** How many streams it has had. */
  get reconnects(): number {
    return Math.max(0, this.streams - 1);
  }

  get isConnected(): boolean {
    return this.streams > 0 && this.outage.isOver;
  }

  /** The longest time without a stream since the last call, in milliseconds. */
  takeOutage(): number {
    return this.outage.take();
  }

  async stop(): Promise<void> {
    this.isLeaving = true;
    await this.running;
  }

  private async run(): Promise<void> {
    let lastEventId = '';
    while (!this.isLeaving) {
      const startedAt = performance.now();
      const stream = await EventStream.open(this.api, '/api/v1/events', lastEventId).catch(() => undefined);
      if (stream?.status === 200) {
        this.streams++;
        this.outage.worked(startedAt);
        await this.listen(stream);
        lastEventId = stream.lastEventId;
      }
      stream?.close();
      if (this.isLeaving) return;
      this.outage.failed(performance.now());
      await new Promise((resolve) => setTimeout(resolve, RETURN_MS));
    }
  }

  /** Resolves when the stream has ended, or lives no more. */
  private async listen(stream: EventStream): Promise<void> {
    let seen = 0;
    let heardAt = performance.now();
    let said = 0;
    while (!this.isLeaving && !stream.ended && performance.now() - heardAt < SILENCE_MS) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      for (const { id } of stream.events.slice(seen)) if (id !== undefined) this.ids.push(id);
      const now = stream.events.length + stream.comments;
      if (now > said) heardAt = performance.now();
      said = now;
      seen = stream.events.length;
    }
    for (const { id } of stream.events.slice(seen)) if (id !== undefined) this.ids.push(id);
  }
}
