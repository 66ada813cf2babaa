import type { Socket } from 'node:net';

import { LINGER_MS } from './limits.js';
import { wasReset } from './was-reset.js';

/** Why a stream ended: who ended it first. */
export type StreamEndReason =
  /** The visitor finished (FIN). */
  | 'visitor_closed'
  /** The visitor's connection broke. */
  | 'visitor_reset'
  /** The client finished (FIN), after it had sent something. */
  | 'client_closed'
  /** The client's connection for this visitor broke. */
  | 'client_reset'
  /** The client closed without a byte: as a rule nothing listened on its local port. */
  | 'local_refused'
  /** One side had finished, and then nothing moved for `LINGER_MS`. */
  | 'linger'
  /** The tunnel was closed, or its client is lost. */
  | 'dropped';

/** What crossed a stream, in bytes that the receiving side's kernel has taken. */
export interface StreamBytes {
  /** From the visitor to the client. */
  readonly in: number;
  /** From the client to the visitor. */
  readonly out: number;
}

/**
 * Copies bytes both ways between a visitor and the client's connection for it until both sides have finished or one
 * breaks (G5):
 *
 * - A side that finishes (FIN) is finished towards the other once all its bytes are there, and the other may go on
 *   sending; then silence on either for `LINGER_MS` ends the stream.
 * - A side that breaks before it has finished breaks the other too (RST): a truncated stream must not look whole.
 * - A side that breaks after it has finished does not: what it sent still arrives, and what the other goes on sending
 *   is thrown away. A web server that answers early and closes is such a side; reset, its answer would be lost.
 *
 * Both sockets come paused and half-open-able. Memory is bounded by one read in each direction: a source is not read
 * while the kernel has not taken its last piece.
 */
export class Stream {
  private reason: StreamEndReason | undefined;
  private bytesIn = 0;
  private bytesOut = 0;
  private clientSpoke = false;
  private open = 2;

  /**
   * @param first bytes of the client that came behind its Accept frame: the beginning of what the visitor will read
   * @param onEnd called once, when both sockets are closed
   */
  constructor(
    private readonly client: Socket,
    private readonly visitor: Socket,
    first: Buffer,
    private readonly onEnd: (reason: StreamEndReason, bytes: StreamBytes) => void,
  ) {
    this.copy(visitor, client, (bytes) => (this.bytesIn += bytes));
    const write = this.copy(client, visitor, (bytes) => (this.bytesOut += bytes));
    client.once('data', () => (this.clientSpoke = true));
    this.guard(client, visitor, (how) => (this.clientSpoke ? `client_${how}` : 'local_refused'));
    this.guard(visitor, client, (how) => `visitor_${how}`);
    visitor.resume();
    if (first.length === 0) {
      client.resume();
    } else {
      this.clientSpoke = true;
      write(first);
    }
  }

  get bytes(): StreamBytes {
    return { in: this.bytesIn, out: this.bytesOut };
  }

  /** Breaks it now, both ways. */
  drop(reason: StreamEndReason = 'dropped'): void {
    this.reason = reason;
    this.client.resetAndDestroy();
    this.visitor.resetAndDestroy();
  }

  /** Returns what writes one piece and reads on when the kernel has taken it. */
  private copy(source: Socket, sink: Socket, count: (bytes: number) => void): (chunk: Buffer) => void {
    const write = (chunk: Buffer): void => {
      sink.write(chunk, (error) => {
        if (error) return;
        count(chunk.length);
        source.resume();
      });
      // as a rule the kernel has taken it by now, and nothing needs to wait
      if (sink.writableLength > 0) source.pause();
    };
    source.on('data', (chunk: Buffer) => {
      // a sink that has finished and gone: see above
      if (sink.writable) write(chunk);
    });
    source.on('end', () => {
      if (wasReset(source)) source.destroy(new Error('reset'));
      else sink.end();
    });
    return write;
  }

  private guard(socket: Socket, other: Socket, reasonOf: (how: 'closed' | 'reset') => StreamEndReason): void {
    socket.on('end', () => {
      if (socket.destroyed) return;
      this.reason ??= reasonOf('closed');
      for (const side of [socket, other]) side.setTimeout(LINGER_MS, () => this.drop('linger'));
    });
    socket.on('error', () => {
      this.reason ??= reasonOf('reset');
    });
    socket.on('close', () => {
      // finished: nobody is left to write to, so what the other sends is thrown away until it ends or lingers
      if (other.writableEnded) other.resume();
      else other.resetAndDestroy();
      if (--this.open === 0) this.onEnd(this.reason ?? 'dropped', this.bytes);
    });
  }
}
