import type { Socket } from 'node:net';

import type { ConnectionEndReason } from '../protocol/reports.js';
import { holdReading, wasReset } from './reset.js';

/**
 * How long a side may go on sending to one that has finished and gone, in milliseconds, from its first byte too many. Long
 * enough to read what that one had said last; a service that streams for ever must learn that nobody listens.
 */
const GONE_MS = 5_000;

/** A pause of the throttle is looked at again after this long: the rate may have been raised. In milliseconds. */
const PAUSE_STEP_MS = 500;

/** Ways in which a side can end a stream, as `reasonOf` in {@link Stream} names them. */
type SideEnd = 'closed' | 'reset';

/** What a stream is made of. Both sockets come paused and half-open-able. */
export interface StreamParts {
  readonly client: Socket;
  readonly visitor: Socket;
  /** Bytes of the client that came behind its Accept frame: the beginning of what the visitor will read. */
  readonly first: Buffer;
  /** What the client is sent before the visitor's own bytes; not counted. */
  readonly preface: Buffer | undefined;
  /**
   * Told of the bytes of each piece that was moved; for how many milliseconds no more must be read from its sender. Asked
   * again with 0 while it waits.
   */
  readonly throttle: (bytes: number) => number;
  readonly idleMs: number;
  readonly lingerMs: number;
  /** Called with bytes from the visitor (`in`) and to it (`out`) when the receiving side's kernel has taken them. */
  readonly count: (direction: 'in' | 'out', bytes: number) => void;
  /** Called once, when both sockets are closed. */
  readonly onEnd: (reason: ConnectionEndReason) => void;
}

/**
 * Copies bytes both ways between a visitor and the client's connection for it until both sides have finished or one
 * breaks (G5):
 *
 * - A side that finishes (FIN) is finished towards the other once all its bytes are there, and the other may go on
 *   sending; then silence on either for `lingerMs` ends the stream.
 * - A side that breaks before it has finished breaks the other too (RST): a truncated stream must not look whole.
 * - A side that breaks after it has finished does not: what it sent still arrives, and what the other goes on sending
 *   is thrown away. A web server that answers early and closes is such a side; reset, its answer would be lost.
 *
 * Memory is bounded by one read in each direction: a source is not read while the kernel has not taken its last piece,
 * or while {@link StreamParts.throttle} asks for a pause.
 */
export class Stream {
  private reason: ConnectionEndReason | undefined;
  private clientSpoke = false;
  private halfClosed = false;
  /** Directions that are held back now. */
  private throttled = 0;
  private open = 2;

  constructor(private readonly parts: StreamParts) {
    const { client, visitor, first, preface, idleMs } = parts;
    const toClient = this.copy(visitor, client, 'in');
    const toVisitor = this.copy(client, visitor, 'out');
    client.once('data', () => (this.clientSpoke = true));
    this.guard(client, visitor, (how) => (this.clientSpoke ? `client_${how}` : 'local_refused'));
    this.guard(visitor, client, (how) => `visitor_${how}`);
    // whatever moves, moves through the visitor's socket
    if (idleMs > 0) visitor.setTimeout(idleMs);
    if (preface) client.write(preface);
    // one that has finished before: nobody else would hear of it
    for (const side of [client, visitor]) if (side.readableEnded) setImmediate(() => side.emit('end'));
    toClient.resume();
    if (first.length === 0) {
      toVisitor.resume();
    } else {
      this.clientSpoke = true;
      toVisitor.write(first);
    }
  }

  /** Breaks it now, both ways. */
  drop(reason: ConnectionEndReason): void {
    this.reason = reason;
    this.parts.client.resetAndDestroy();
    this.parts.visitor.resetAndDestroy();
  }

  private copy(source: Socket, sink: Socket, direction: 'in' | 'out') {
    const { throttle, count } = this.parts;
    let underWay = 0;
    let pause: NodeJS.Timeout | undefined;
    const resume = (): void => {
      if (underWay === 0 && pause === undefined) source.resume();
    };
    const holdBack = (until: number): void => {
      if (pause === undefined) this.throttled++;
      clearTimeout(pause);
      const look = (): void => {
        if (performance.now() < until && throttle(0) >= 1) return holdBack(until);
        release();
        resume();
      };
      pause = setTimeout(look, Math.min(PAUSE_STEP_MS, until - performance.now()));
    };
    const release = (): void => {
      if (pause !== undefined) this.throttled--;
      clearTimeout(pause);
      pause = undefined;
    };
    const write = (chunk: Buffer): void => {
      underWay++;
      const readOn = source.writableEnded ? holdReading(source) : undefined;
      sink.write(chunk, (error) => {
        readOn?.();
        underWay--;
        if (error) return;
        count(direction, chunk.length);
        resume();
      });
      const pauseMs = throttle(chunk.length);
      if (pauseMs >= 1) holdBack(performance.now() + pauseMs);
      // as a rule the kernel has taken it by now, and nothing needs to wait
      if (pause !== undefined || sink.writableLength > 0) source.pause();
    };
    source.on('data', (chunk: Buffer) => {
      // a sink that has finished and gone: see above
      if (sink.writable) write(chunk);
    });
    source.on('end', () => {
      if (wasReset(source)) source.destroy(new Error('reset'));
      else sink.end();
    });
    source.on('close', release);
    return { write, resume };
  }

  private guard(socket: Socket, other: Socket, reasonOf: (how: SideEnd) => ConnectionEndReason): void {
    socket.on('end', () => {
      if (socket.destroyed) return;
      this.reason ??= reasonOf('closed');
      this.halfClosed = true;
      for (const side of [socket, other]) side.setTimeout(this.parts.lingerMs);
    });
    socket.on('timeout', () => {
      // silence of our own making
      if (this.throttled > 0) socket.setTimeout(socket.timeout ?? 0);
      else if (this.halfClosed) this.giveUp();
      else this.drop('idle');
    });
    socket.on('error', () => {
      this.reason ??= reasonOf('reset');
    });
    socket.on('close', () => {
      // finished: nobody is left to write to
      if (other.writableEnded) this.discard(other);
      else other.resetAndDestroy();
      if (--this.open === 0) this.parts.onEnd(this.reason ?? 'revoked');
    });
  }

  /** The linger time is over. What a side has been sent completely is in the kernel, which goes on delivering it. */
  private giveUp(): void {
    this.reason = 'linger';
    for (const side of [this.parts.client, this.parts.visitor]) {
      if (side.writableFinished) side.destroy();
      else side.resetAndDestroy();
    }
  }

  /** Throws away what a side goes on sending to one that is gone; if it does not stop by itself, it is told after a while. */
  private discard(side: Socket): void {
    side.once('data', () => {
      const timer = setTimeout(() => side.resetAndDestroy(), GONE_MS);
      side.once('close', () => clearTimeout(timer));
    });
    side.resume();
  }
}
