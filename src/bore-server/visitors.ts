import type { Socket } from 'node:net';

import { randomUuid } from '../protocol/challenge.js';
import { newConnectionId } from '../protocol/connection-id.js';
import type { Fence } from '../protocol/plane-api.js';
import type { ConnectionEndReason } from '../protocol/reports.js';
import { Stream } from '../relay/stream.js';
import { isBehind } from './fences.js';
import { type Limits, VISITOR_KEEPALIVE_MS } from './limits.js';
import type { Metrics } from './metrics.js';
import type { Networks } from './networks.js';
import { findOrigin, type Origin, originOf } from './proxied-socket.js';
import { CountBySource, RateBySource, sourceOf } from './sources.js';
import type { Tunnel } from './tunnel.js';
import type { UsageBook } from './usage-book.js';
import { prefaceOf, recordOf, type Visitor } from './visitor.js';

/** What the visitors need of the server. */
export interface VisitorsContext {
  readonly limits: Limits;
  readonly metrics: Metrics;
  /** Load balancers whose PROXY protocol header is believed. */
  readonly trusted: Networks | undefined;
  /** Where usage is written down; none in stand-alone mode. */
  readonly book: UsageBook | undefined;
  /** When a connection to the control port was last shed, by `performance.now()`: a client may have come for its visitor on it. */
  lastShedAt(): number;
  /** Called when a visitor is gone, after it was taken off its tunnel. */
  readonly onLeave: (tunnel: Tunnel) => void;
}

/** All visitors of all tunnels: who waits for which client, and how many there are. */
export class Visitors {
  /** Bytes since the start. */
  readonly bytes = { in: 0, out: 0 };
  private readonly waiting = new Map<string, Visitor>();
  private carried = 0;
  /** From a load balancer, and its header is not here yet. */
  private arriving = 0;
  private readonly bySource = new CountBySource();
  private readonly rates: RateBySource;

  constructor(private readonly context: VisitorsContext) {
    this.rates = new RateBySource(context.limits.connectionsPerSecondPerSource);
  }

  /** Visitors waiting or carried. */
  get count(): number {
    return this.waiting.size + this.carried;
  }

  /** Of these, waiting for their client. */
  get pending(): number {
    return this.waiting.size;
  }

  /** A visitor connected to a tunnel's public port, paused. */
  admit(socket: Socket, tunnel: Tunnel): void {
    socket.on('error', () => undefined); // a reset: 'close' follows
    const { trusted, limits } = this.context;
    const peer = originOf(socket);
    // reset before it could be asked: nobody is there
    if (!peer) return void socket.destroy();
    if (this.count + this.arriving >= limits.maxConnections) return this.refuse(socket, tunnel, peer, 'limit');
    if (!trusted) return this.enter(socket, tunnel, peer);
    this.arriving++;
    findOrigin(socket, trusted)
      .then(
        (origin) => this.enter(socket, tunnel, origin),
        () => {
          this.context.metrics.visitors.inc({ outcome: 'no_header' });
          socket.resetAndDestroy();
        },
      )
      .finally(() => this.arriving--);
  }

  /** The tunnel that a waiting visitor came to. */
  tunnelOf(id: string): Tunnel | undefined {
    return this.waiting.get(id)?.tunnel;
  }

  /** Gives a waiting visitor to the client's connection for it. False when it does not wait (any more). */
  carry(id: string, client: Socket, first: Buffer): boolean {
    const visitor = this.waiting.get(id);
    if (!visitor) return false;
    const { limits, metrics, book } = this.context;
    const { tunnel } = visitor;
    this.stopWaiting(visitor);
    this.carried++;
    tunnel.carried.add(visitor);
    visitor.fetchedBy = tunnel.authority;
    tunnel.lastFetchedAt = performance.now();
    book?.countConnection(tunnel.id);
    visitor.setupMs = performance.now() - visitor.arrivedAt;
    metrics.visitors.inc({ outcome: 'carried' });
    metrics.setupSeconds.observe(visitor.setupMs / 1000);
    visitor.stream = new Stream({
      client,
      visitor: visitor.socket,
      first,
      preface: prefaceOf(visitor),
      throttle: (bytes) => tunnel.bandwidth.take(bytes),
      idleMs: limits.idleSeconds * 1000,
      lingerMs: limits.lingerSeconds * 1000,
      count: (direction, bytes) => {
        this.bytes[direction] += bytes;
        visitor.bytes[direction] += bytes;
        book?.countBytes(tunnel.id, direction, bytes);
      },
      onEnd: (reason) => {
        this.carried--;
        tunnel.carried.delete(visitor);
        this.leave(visitor, reason);
      },
    });
    return true;
  }

  /** Visitors that wait are announced to the tunnel's new client, so that a takeover loses none of them. */
  announceTo(tunnel: Tunnel): void {
    for (const id of tunnel.waiting.keys()) tunnel.session?.sendConnection(id);
  }

  /** Sends away who waits for a client that will not come. */
  dismissWaiting(tunnel: Tunnel, reason: ConnectionEndReason): void {
    for (const visitor of tunnel.waiting.values()) this.dismiss(visitor, reason);
  }

  /** Breaks every stream of a tunnel. */
  dropCarried(tunnel: Tunnel, reason: ConnectionEndReason): void {
    for (const { stream } of tunnel.carried) stream?.drop(reason);
  }

  /** Breaks the streams of a tunnel whose clients are behind a fence. */
  dropFenced(tunnel: Tunnel, fence: Fence): void {
    for (const { stream, fetchedBy } of tunnel.carried) {
      if (fetchedBy && isBehind(fetchedBy, fence)) stream?.drop('revoked');
    }
  }

  /** Sends away whom the tunnel's networks exclude now; nobody else notices. */
  enforcePolicy(tunnel: Tunnel): void {
    const excluded = [...tunnel.waiting.values(), ...tunnel.carried].filter(
      ({ origin }) => !tunnel.allows(origin.address),
    );
    for (const visitor of excluded) {
      if (visitor.stream) visitor.stream.drop('denied');
      else this.dismiss(visitor, 'denied');
    }
  }

  private enter(socket: Socket, tunnel: Tunnel, origin: Origin): void {
    const { limits } = this.context;
    const source = sourceOf(origin.address);
    // its session ended while the load balancer's header was awaited
    if (!tunnel.session) return void socket.resetAndDestroy();
    if (!tunnel.allows(origin.address)) return this.refuse(socket, tunnel, origin, 'denied');
    if (
      this.bySource.of(source) >= limits.maxConnectionsPerSource ||
      tunnel.visitors >= tunnel.maxVisitors ||
      tunnel.waiting.size >= limits.maxWaitingPerTunnel ||
      !this.rates.take(source)
    ) {
      return this.refuse(socket, tunnel, origin, 'limit');
    }
    const visitor: Visitor = {
      id: newConnectionId(tunnel.publicPort?.port ?? 0),
      socket,
      origin,
      tunnel,
      startedAt: new Date(),
      arrivedAt: performance.now(),
      timer: setTimeout(() => this.giveUp(visitor), limits.waitingSeconds * 1000),
      stream: undefined,
      fetchedBy: undefined,
      setupMs: null,
      bytes: { in: 0, out: 0 },
    };
    this.bySource.add(source);
    this.waiting.set(visitor.id, visitor);
    tunnel.waiting.set(visitor.id, visitor);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, VISITOR_KEEPALIVE_MS);
    socket.once('close', () => this.dismiss(visitor, 'visitor_reset'));
    tunnel.session.sendConnection(visitor.id);
  }

  private refuse(socket: Socket, tunnel: Tunnel, origin: Origin, reason: 'limit' | 'denied'): void {
    this.context.metrics.visitors.inc({ outcome: reason });
    socket.resetAndDestroy();
    const at = new Date();
    this.context.book?.record(
      recordOf(
        { id: randomUuid(), tunnel, origin, startedAt: at, setupMs: null, bytes: { in: 0, out: 0 } },
        reason,
        at,
      ),
    );
  }

  /**
   * The client did not come for a visitor. If it has come for nobody since, it is not there: its machine vanished with the
   * notice unacknowledged, which keeps TCP keepalive from noticing for a quarter of an hour, or it hangs. Nothing is known of it when
   * we have shed connections since.
   */
  private giveUp(visitor: Visitor): void {
    const { session, lastFetchedAt } = visitor.tunnel;
    const heardAt = Math.max(lastFetchedAt, session?.begunAt ?? 0, this.context.lastShedAt());
    const isThere = heardAt >= visitor.arrivedAt;
    this.dismiss(visitor, 'not_fetched');
    if (!isThere) session?.end('client_lost', 'visitors were not fetched');
  }

  private dismiss(visitor: Visitor, reason: ConnectionEndReason): void {
    if (!this.waiting.has(visitor.id)) return;
    this.context.metrics.visitors.inc({ outcome: 'not_fetched' });
    this.stopWaiting(visitor);
    visitor.socket.resetAndDestroy();
    this.leave(visitor, reason);
  }

  private stopWaiting(visitor: Visitor): void {
    clearTimeout(visitor.timer);
    this.waiting.delete(visitor.id);
    visitor.tunnel.waiting.delete(visitor.id);
  }

  private leave(visitor: Visitor, reason: ConnectionEndReason): void {
    const { origin, tunnel } = visitor;
    this.bySource.remove(sourceOf(origin.address));
    this.context.book?.record(recordOf(visitor, reason));
    this.context.onLeave(tunnel);
  }
}
