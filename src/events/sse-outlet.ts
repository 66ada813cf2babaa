import type { ServerResponse } from 'node:http';

import type { ErrorCode } from '../platform/errors/error-register.js';
import type { EventView } from './event.js';
import type { StreamStart } from './event-streams.js';
import type { EventOutlet } from './event-subscription.js';

/** A client that takes nothing for so long is cut off; it may come back and go on behind its last event. */
const STALL_MS = 10_000;
/** Clients come back after this: at random times, so that those of a backend that went do not all come at once. */
const RETRY_MS_MIN = 1_000;
const RETRY_MS_MAX = 3_000;
/** For the last words; a client that does not take them is cut off. */
const END_MS = 500;

/**
 * A stream of Server-Sent Events (WHATWG HTML, 9.2). What Node buffers for a client is its high-water mark and one event:
 * whoever sends stops when `send` says so.
 */
export class SseOutlet implements EventOutlet {
  readonly gone: Promise<void>;
  private lastId = 0;

  /** Answers with the head of the stream. `headers`: those that the request has got so far. */
  constructor(
    private readonly response: ServerResponse,
    headers: Readonly<Record<string, number | string | string[] | undefined>>,
    { fresh, id }: StreamStart,
  ) {
    this.gone = new Promise((resolve) => {
      if (response.destroyed) resolve();
      else response.once('close', resolve);
    });
    // a peer that resets the connection; `close` follows
    response.on('error', () => undefined);
    for (const [name, value] of Object.entries(headers)) if (value !== undefined) response.setHeader(name, value);
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      // nginx would collect the stream
      'x-accel-buffering': 'no',
      // the end of the stream is the end of the connection: nothing of it holds up a shutdown
      connection: 'close',
    });
    const retry = Math.round(RETRY_MS_MIN + Math.random() * (RETRY_MS_MAX - RETRY_MS_MIN));
    // an id without data is no event: the client keeps it, and says it when it comes back before there was an event
    response.write(`retry: ${retry}\n${fresh ? `id: ${id}\n` : ''}\n`);
    this.lastId = id;
  }

  send(event: EventView): boolean {
    if (this.over) return false;
    this.lastId = Number(event.id);
    return this.response.write(`id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
  }

  reset(id: number): void {
    if (this.over) return;
    this.lastId = id;
    this.response.write(`id: ${id}\nevent: reset\ndata: ${JSON.stringify({ lastEventId: String(id) })}\n\n`);
  }

  async drained(): Promise<boolean> {
    if (!this.over && this.response.writableNeedDrain) await this.drainOrCut();
    return !this.over;
  }

  keepAlive(position: number): void {
    if (this.over || this.response.writableNeedDrain) return;
    // lets a client that gets few events come back without having to be told that its last one is forgotten
    const idLine = position > this.lastId ? `id: ${position}\n` : '';
    this.lastId = Math.max(this.lastId, position);
    this.response.write(`: keep-alive\n${idLine}\n`);
  }

  end(code: ErrorCode): void {
    if (this.over) return;
    this.response.end(`event: end\ndata: ${JSON.stringify({ code })}\n\n`);
    setTimeout(() => this.response.destroy(), END_MS).unref();
  }

  /**
   * By hand: AbortSignal.any lets garbage collection forget a timeout (Node 20), and a race with `gone` would keep something
   * of every wait until the end of the stream.
   */
  private drainOrCut(): Promise<void> {
    const { response } = this;
    return new Promise((resolve) => {
      const stalled = setTimeout(() => response.destroy(), STALL_MS);
      const settle = () => {
        clearTimeout(stalled);
        response.off('drain', settle).off('close', settle);
        resolve();
      };
      response.on('drain', settle).on('close', settle);
    });
  }

  private get over(): boolean {
    return this.response.destroyed || this.response.writableEnded;
  }
}
