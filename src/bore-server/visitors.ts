import type { Socket } from 'node:net';

import { randomUuid } from '../protocol/challenge.js';
import {
  CONNECTIONS_MAX,
  CONNECTIONS_PER_SOURCE_MAX,
  VISITOR_KEEPALIVE_MS,
  WAITING_PER_TUNNEL_MAX,
  WAITING_VISITOR_MS,
} from './limits.js';
import type { Metrics } from './metrics.js';
import { Stream, type StreamBytes } from './stream.js';
import type { Tunnel } from './tunnel.js';

/** A visitor who is here: first waiting to be fetched by the client, then carried. */
export interface Visitor {
  readonly id: string;
  readonly socket: Socket;
  readonly source: string;
  readonly tunnel: Tunnel;
  readonly arrivedAt: number;
  /** Runs while the visitor waits. */
  readonly timer: NodeJS.Timeout;
  /** Once it is carried. */
  stream: Stream | undefined;
}

/** All visitors of all tunnels: who waits for which client, and how many there are. */
export class Visitors {
  private readonly waiting = new Map<string, Visitor>();
  private readonly carried = new Set<Visitor>();
  private readonly bySource = new Map<string, number>();
  /** Bytes of streams that have ended. */
  private ended: StreamBytes = { in: 0, out: 0 };

  /** @param onLeave called when a visitor is gone, after it was taken off its tunnel */
  constructor(
    private readonly metrics: Metrics,
    private readonly onLeave: (tunnel: Tunnel) => void,
  ) {}

  /** Visitors waiting or carried. */
  get count(): number {
    return this.waiting.size + this.carried.size;
  }

  /** Bytes from visitors (in) and to visitors (out) since the start. */
  get bytes(): StreamBytes {
    let total = this.ended;
    for (const { stream } of this.carried) total = add(total, stream?.bytes ?? { in: 0, out: 0 });
    return total;
  }

  /** A visitor connected to a tunnel's public port: asks the client to fetch it, or sheds it at a limit. */
  admit(socket: Socket, tunnel: Tunnel): void {
    const source = socket.remoteAddress ?? '';
    const fromSource = this.bySource.get(source) ?? 0;
    if (
      this.count >= CONNECTIONS_MAX ||
      fromSource >= CONNECTIONS_PER_SOURCE_MAX ||
      tunnel.visitors >= tunnel.maxVisitors ||
      tunnel.waiting.size >= WAITING_PER_TUNNEL_MAX
    ) {
      this.metrics.visitors.inc({ outcome: 'shed' });
      socket.resetAndDestroy();
      return;
    }
    const visitor: Visitor = {
      id: randomUuid(),
      socket,
      source,
      tunnel,
      arrivedAt: performance.now(),
      timer: setTimeout(() => this.dismiss(visitor), WAITING_VISITOR_MS),
      stream: undefined,
    };
    this.bySource.set(source, fromSource + 1);
    this.waiting.set(visitor.id, visitor);
    tunnel.waiting.set(visitor.id, visitor);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, VISITOR_KEEPALIVE_MS);
    socket.on('error', () => undefined); // a reset: 'close' follows
    socket.once('close', () => this.dismiss(visitor));
    tunnel.session?.sendConnection(visitor.id);
  }

  /** The tunnel that a waiting visitor came to. */
  tunnelOf(id: string): Tunnel | undefined {
    return this.waiting.get(id)?.tunnel;
  }

  /** Gives a waiting visitor to the client's connection for it. False when it does not wait (any more). */
  carry(id: string, client: Socket, first: Buffer): boolean {
    const visitor = this.waiting.get(id);
    if (!visitor) return false;
    this.stopWaiting(visitor);
    this.carried.add(visitor);
    visitor.tunnel.carried.add(visitor);
    this.metrics.visitors.inc({ outcome: 'carried' });
    this.metrics.setupSeconds.observe((performance.now() - visitor.arrivedAt) / 1000);
    visitor.stream = new Stream(client, visitor.socket, first, (_reason, bytes) => {
      this.carried.delete(visitor);
      visitor.tunnel.carried.delete(visitor);
      this.ended = add(this.ended, bytes);
      this.leave(visitor);
    });
    return true;
  }

  /** Visitors that wait are announced to the tunnel's new client, so that a takeover loses none of them. */
  announceTo(tunnel: Tunnel): void {
    for (const id of tunnel.waiting.keys()) tunnel.session?.sendConnection(id);
  }

  /** Sends away who waits for a client that will not come. */
  dismissWaiting(tunnel: Tunnel): void {
    for (const visitor of tunnel.waiting.values()) this.dismiss(visitor);
  }

  /** Breaks every stream of a tunnel. */
  dropCarried(tunnel: Tunnel): void {
    for (const { stream } of tunnel.carried) stream?.drop();
  }

  private dismiss(visitor: Visitor): void {
    if (!this.waiting.has(visitor.id)) return;
    this.metrics.visitors.inc({ outcome: 'not_fetched' });
    this.stopWaiting(visitor);
    visitor.socket.resetAndDestroy();
    this.leave(visitor);
  }

  private stopWaiting(visitor: Visitor): void {
    clearTimeout(visitor.timer);
    this.waiting.delete(visitor.id);
    visitor.tunnel.waiting.delete(visitor.id);
  }

  private leave({ source, tunnel }: Visitor): void {
    const left = (this.bySource.get(source) ?? 1) - 1;
    if (left === 0) this.bySource.delete(source);
    else this.bySource.set(source, left);
    this.onLeave(tunnel);
  }
}

function add(a: StreamBytes, b: StreamBytes): StreamBytes {
  return { in: a.in + b.in, out: a.out + b.out };
}
