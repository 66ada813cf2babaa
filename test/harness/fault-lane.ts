import type { Socket } from 'node:net';

import type { Toxics } from './toxics.js';

/** Bytes under way in one direction of one connection; above, its source is not read. */
const QUEUE_BYTES_MAX = 1024 * 1024;
/** With a set bandwidth, a piece is at most what takes so long: the flow is even. */
const PACE_MS = 20;

/** A piece under way, or the end. */
interface Item {
  readonly bytes: Buffer | 'end';
  readonly arrivedAt: number;
  /** -1…1: its share of the jitter. */
  readonly luck: number;
}

/** One direction of a connection through the proxy: what its source says is said to its sink, through the toxics. */
export class FaultLane {
  private readonly queue: Item[] = [];
  private queuedBytes = 0;
  private deliveredBytes = 0;
  /** When the last item was let go: none overtakes another. */
  private lastDue = 0;
  /** When the set bandwidth allows the next piece. */
  private freeAt = 0;
  private ended = false;
  private isOver = false;
  private swallowed = 0;
  private notify: () => void = () => undefined;

  /**
   * @param toxics asked again for each piece
   * @param over the limit is reached
   */
  constructor(
    private readonly source: Socket,
    private readonly sink: Socket,
    private readonly toxics: () => Toxics,
    private readonly over: (how: 'close' | 'reset') => void,
  ) {
    source.on('data', (bytes: Buffer) => {
      if (toxics().swallow) this.swallowed += bytes.length;
      if (toxics().swallow || sink.destroyed || this.isOver) return;
      this.queuedBytes += bytes.length;
      if (this.queuedBytes >= QUEUE_BYTES_MAX) source.pause();
      this.push(bytes);
    });
    source.on('end', () => {
      if (toxics().swallow) return;
      this.ended = true;
      this.push('end');
    });
    sink.on('close', () => {
      this.queuedBytes = 0;
      // nobody is left to say it to: it is thrown away
      source.resume();
      this.wake();
    });
  }

  /** The source has finished, and the sink will hear of it. */
  get isEnded(): boolean {
    return this.ended;
  }

  /** Bytes that were taken and went nowhere. */
  get swallowedBytes(): number {
    return this.swallowed;
  }

  /** Begins to carry; ends with the sink. */
  async run(): Promise<void> {
    this.source.resume();
    while (!this.sink.destroyed && !this.isOver) {
      const [item] = this.queue;
      const waitMs = item ? this.dueAt(item) - performance.now() : Infinity;
      if (!item || waitMs > 0) {
        await this.change(waitMs);
        continue;
      }
      this.queue.shift();
      this.lastDue = this.dueAt(item);
      if (item.bytes === 'end') {
        this.sink.end();
        return;
      }
      await this.deliver(item.bytes);
      this.queuedBytes -= item.bytes.length;
      if (this.queuedBytes < QUEUE_BYTES_MAX) this.source.resume();
    }
  }

  /** The toxics have changed, or something has come. */
  wake(): void {
    this.notify();
  }

  private push(bytes: Item['bytes']): void {
    this.queue.push({ bytes, arrivedAt: performance.now(), luck: Math.random() * 2 - 1 });
    this.wake();
  }

  private dueAt({ bytes, arrivedAt, luck }: Item): number {
    const { latencyMs, jitterMs, slowCloseMs } = this.toxics();
    const lateMs = Math.max(0, latencyMs + luck * jitterMs) + (bytes === 'end' ? slowCloseMs : 0);
    return Math.max(this.lastDue, arrivedAt + lateMs);
  }

  private async deliver(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length && !this.sink.destroyed && !this.isOver;) {
      const { sliceBytes, sliceDelayMs, bytesPerSecond, limit } = this.toxics();
      if (bytesPerSecond > 0 && this.freeAt > performance.now()) {
        await this.change(this.freeAt - performance.now());
        continue;
      }
      const most = Math.min(
        sliceBytes || Infinity,
        bytesPerSecond > 0 ? Math.max(1, Math.floor((bytesPerSecond * PACE_MS) / 1000)) : Infinity,
        limit ? limit.bytes - this.deliveredBytes : Infinity,
      );
      const piece = bytes.subarray(at, at + Math.max(0, most));
      if (piece.length > 0) await this.write(piece);
      at += piece.length;
      this.deliveredBytes += piece.length;
      if (limit && this.deliveredBytes >= limit.bytes) {
        this.isOver = true;
        this.over(limit.how);
      }
      if (bytesPerSecond > 0) {
        this.freeAt = Math.max(this.freeAt, performance.now() - PACE_MS) + (piece.length * 1000) / bytesPerSecond;
      }
      if (sliceBytes > 0 && sliceDelayMs > 0) await this.change(sliceDelayMs);
    }
  }

  /** Resolves when the kernel has taken it, or never will. */
  private write(piece: Buffer): Promise<void> {
    return new Promise((resolve) => this.sink.write(piece, () => resolve()));
  }

  private change(withinMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = withinMs === Infinity ? undefined : setTimeout(resolve, withinMs);
      this.notify = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
