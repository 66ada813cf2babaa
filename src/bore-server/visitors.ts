import type { Socket } from 'node:net';

import { randomUuid } from '../protocol/challenge.js';
import { CONNECTIONS_MAX, CONNECTIONS_PER_SOURCE_MAX, WAITING_PER_TUNNEL_MAX, WAITING_VISITOR_MS } from './limits.js';
import type { Metrics } from './metrics.js';
import { relay } from './relay.js';
import type { TunnelSession } from './tunnel-session.js';

/** A visitor who is here: first waiting to be fetched by the client, then carried. */
interface Visitor {
  readonly id: string;
  readonly socket: Socket;
  readonly source: string;
  readonly session: TunnelSession;
  readonly arrivedAt: number;
  /** Runs while the visitor waits. */
  timer: NodeJS.Timeout | undefined;
}

/** All visitors of all tunnels: who waits for which client, and how many there are. */
export class Visitors {
  private readonly waiting = new Map<string, Visitor>();
  private readonly carried = new Set<Visitor>();
  private readonly bySource = new Map<string, number>();
  /** Bytes of streams that have ended. */
  private bytesIn = 0;
  private bytesOut = 0;

  constructor(private readonly metrics: Metrics) {}

  /** Visitors waiting or carried. */
  get count(): number {
    return this.waiting.size + this.carried.size;
  }

  /** Bytes from visitors (in) and to visitors (out) since the start. */
  get bytes(): { in: number; out: number } {
    let [bytesIn, bytesOut] = [this.bytesIn, this.bytesOut];
    for (const { socket } of this.carried) {
      bytesIn += socket.bytesRead;
      bytesOut += socket.bytesWritten;
    }
    return { in: bytesIn, out: bytesOut };
  }

  /** A visitor connected to a tunnel's public port: asks the client to fetch it, or sheds it at a limit. */
  admit(socket: Socket, session: TunnelSession): void {
    const source = socket.remoteAddress ?? '';
    const fromSource = this.bySource.get(source) ?? 0;
    if (
      this.count >= CONNECTIONS_MAX ||
      fromSource >= CONNECTIONS_PER_SOURCE_MAX ||
      session.visitors >= session.maxVisitors ||
      session.waitingVisitors >= WAITING_PER_TUNNEL_MAX
    ) {
      this.metrics.visitors.inc({ outcome: 'shed' });
      socket.resetAndDestroy();
      return;
    }
    const visitor: Visitor = {
      id: randomUuid(),
      socket,
      source,
      session,
      arrivedAt: performance.now(),
      timer: undefined,
    };
    visitor.timer = setTimeout(() => socket.destroy(), WAITING_VISITOR_MS);
    this.bySource.set(source, fromSource + 1);
    this.waiting.set(visitor.id, visitor);
    session.visitors++;
    session.waitingVisitors++;
    socket.setNoDelay(true);
    socket.on('error', () => undefined); // a reset: 'close' follows
    socket.once('close', () => this.onClose(visitor));
    session.sendConnection(visitor.id);
  }

  /** The session that a waiting visitor belongs to. */
  ownerOf(id: string): TunnelSession | undefined {
    return this.waiting.get(id)?.session;
  }

  /** Gives a waiting visitor to the client's connection for it. False when it does not wait (any more). */
  carry(id: string, client: Socket, first: Buffer): boolean {
    const visitor = this.waiting.get(id);
    if (!visitor) return false;
    this.stopWaiting(visitor);
    this.carried.add(visitor);
    visitor.session.streams.add(client);
    this.metrics.visitors.inc({ outcome: 'carried' });
    this.metrics.setupSeconds.observe((performance.now() - visitor.arrivedAt) / 1000);
    relay(client, visitor.socket, first, () => visitor.session.streams.delete(client));
    return true;
  }

  /** Sends away everybody who waits for, or is carried by, a session. */
  dropAllOf(session: TunnelSession): void {
    for (const visitor of [...this.waiting.values(), ...this.carried]) {
      if (visitor.session === session) visitor.socket.destroy();
    }
    for (const client of session.streams) client.destroy();
  }

  private stopWaiting(visitor: Visitor): void {
    clearTimeout(visitor.timer);
    if (this.waiting.delete(visitor.id)) visitor.session.waitingVisitors--;
  }

  private onClose(visitor: Visitor): void {
    if (this.waiting.has(visitor.id)) this.metrics.visitors.inc({ outcome: 'not_fetched' });
    this.stopWaiting(visitor);
    if (this.carried.delete(visitor)) {
      this.bytesIn += visitor.socket.bytesRead;
      this.bytesOut += visitor.socket.bytesWritten;
    }
    visitor.session.visitors--;
    const left = (this.bySource.get(visitor.source) ?? 1) - 1;
    if (left === 0) this.bySource.delete(visitor.source);
    else this.bySource.set(visitor.source, left);
  }
}
