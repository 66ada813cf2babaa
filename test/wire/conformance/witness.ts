import { once } from 'node:events';
import type { Socket } from 'node:net';

import { tellingEnds } from '../../harness/exact-ends.js';
import { isText, textAt } from '../../harness/known-text.js';
import { until } from '../../harness/until.js';

const PIECE_BYTES = 64 * 1024;
/** Nothing was taken for so long: all buffers on the way are full. */
const STALLED_MS = 250;

/** One end of a stream, which speaks a known text and watches what the other says and how it ends. */
export class Witness {
  /** Bytes that the kernel has taken. */
  sent = 0;
  received = 0;
  /** Whether what was received is the beginning of what the other sent. */
  intact = true;
  end: 'open' | 'finished' | 'reset' = 'open';
  endedAt = 0;
  private sending: Promise<void> = Promise.resolve();

  constructor(readonly socket: Socket) {
    tellingEnds(socket)
      .on('data', (chunk: Buffer) => this.check(chunk))
      .on('end', () => this.endAs('finished'))
      .on('error', () => this.endAs('reset'))
      .pause();
  }

  read(): void {
    this.socket.resume();
  }

  stopReading(): void {
    this.socket.pause();
  }

  /** Sends so many bytes more, as the other takes them. */
  send(bytes: number): void {
    this.sending = this.sending.then(async () => {
      const goal = this.sent + bytes;
      while (this.sent < goal && this.socket.writable) {
        const piece = textAt(this.sent, Math.min(PIECE_BYTES, goal - this.sent));
        await new Promise<void>((resolve) => {
          this.socket.write(piece, (error) => {
            if (!error) this.sent += piece.length;
            resolve();
          });
        });
      }
    });
  }

  /** FIN behind everything sent so far; goes on reading. */
  async halfClose(): Promise<void> {
    await this.sending;
    this.socket.end();
    await until(() => this.socket.writableFinished || this.socket.destroyed, 'the end is sent');
  }

  /** What close() does: FIN behind everything sent so far, or a reset when something was not read. */
  async close(): Promise<void> {
    await this.sending;
    this.socket.destroy();
  }

  /** RST, now; with `bytes` right before it, so that they arrive together. */
  reset(bytes = 0): void {
    if (bytes > 0) this.socket.write(textAt(this.sent, bytes));
    this.sent += bytes;
    this.socket.resetAndDestroy();
  }

  /** Resolves when everything sent is in the kernel's hands. */
  async flushed(): Promise<void> {
    await this.sending;
  }

  /** Resolves when all buffers between it and a reader that does not read are full. */
  async stalled(): Promise<void> {
    let sent = -1;
    let since = 0;
    await until(() => {
      if (sent !== this.sent) since = performance.now();
      sent = this.sent;
      return performance.now() - since > STALLED_MS;
    }, 'nothing more is taken');
  }

  /** Resolves when so many bytes were received, or it has ended. */
  async hears(bytes: number): Promise<void> {
    this.read();
    await until(() => this.received >= bytes || this.end !== 'open', `${bytes} bytes are heard`);
  }

  /** Resolves when the other has ended it, or after `withinMs`. */
  async ends(withinMs: number): Promise<void> {
    this.read();
    if (this.end !== 'open') return;
    const signal = AbortSignal.timeout(withinMs);
    // neither comes in time: it is open, which is a result
    await Promise.race([once(this.socket, 'end', { signal }), once(this.socket, 'close', { signal })]).catch(
      () => undefined,
    );
  }

  private check(chunk: Buffer): void {
    if (!isText(chunk, this.received)) this.intact = false;
    this.received += chunk.length;
  }

  private endAs(how: 'finished' | 'reset'): void {
    // a reset may come after an end, when this side goes on sending to one that has gone
    if (this.end === 'reset' || (this.end === 'finished' && how === 'finished')) return;
    this.end = how;
    this.endedAt = performance.now();
  }
}
