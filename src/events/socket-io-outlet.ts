import type { Socket } from 'socket.io';

import type { ErrorCode } from '../platform/errors/error-register.js';
import type { EventView } from './event.js';
import type { StreamStart } from './event-streams.js';
import type { EventOutlet } from './event-subscription.js';

/** Events that wait behind the batch which is on its way, some 10 KB: more are read when it has gone. */
const WAITING_MAX = 16;
/** A client that takes nothing for so long is cut off; it may come back and go on behind its last event. */
const STALL_MS = 10_000;
/** For the last words; a client that does not take them is cut off. */
const END_MS = 500;

/**
 * A socket.io connection. engine.io hands packets to the network in batches, the next when the kernel has taken the one before
 * (for polling: when the client asks), and says `drain` then. What waits is counted here: it would keep any number.
 */
export class SocketIoOutlet implements EventOutlet {
  readonly gone: Promise<void>;
  private waiting = 0;
  private lastId: number;

  /** `cut` ends the connection at once, without a word. */
  constructor(
    private readonly socket: Socket,
    private readonly cut: () => void,
    { fresh, id }: StreamStart,
  ) {
    this.lastId = id;
    this.gone = new Promise((resolve) => {
      if (socket.connected) socket.once('disconnect', () => resolve());
      else resolve();
    });
    socket.conn.on('drain', () => (this.waiting = 0));
    if (fresh) this.say('position', { lastEventId: String(id) });
  }

  send(event: EventView): boolean {
    if (this.over) return false;
    this.lastId = Number(event.id);
    this.say(event.type, event);
    return this.waiting < WAITING_MAX;
  }

  reset(id: number): void {
    if (this.over) return;
    this.lastId = id;
    this.say('reset', { lastEventId: String(id) });
  }

  async drained(): Promise<boolean> {
    if (!this.over && this.waiting >= WAITING_MAX) await this.drainOrCut();
    return !this.over;
  }

  /** That both ends are there, engine.io's pings show. */
  keepAlive(position: number): void {
    if (this.over || this.waiting > 0 || position <= this.lastId) return;
    this.lastId = position;
    this.say('position', { lastEventId: String(position) });
  }

  end(code: ErrorCode): void {
    if (this.over) return;
    this.say('end', { code });
    // a client that is told to go does not come back by itself; one whose connection breaks does, to another backend
    if (code === 'UNAVAILABLE') this.socket.conn.close();
    else this.socket.disconnect(true);
    setTimeout(this.cut, END_MS).unref();
  }

  private say(name: string, body: object): void {
    this.waiting += 1;
    this.socket.emit(name, body);
  }

  private drainOrCut(): Promise<void> {
    const { conn } = this.socket;
    return new Promise((resolve) => {
      const stalled = setTimeout(this.cut, STALL_MS);
      const settle = () => {
        clearTimeout(stalled);
        conn.off('drain', settle).off('close', settle);
        resolve();
      };
      conn.on('drain', settle).on('close', settle);
    });
  }

  private get over(): boolean {
    return !this.socket.connected || this.socket.conn.readyState !== 'open';
  }
}
