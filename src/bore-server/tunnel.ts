import type { Grant } from '../protocol/plane-api.js';
import { CONNECTIONS_PER_TUNNEL_MAX } from './limits.js';
import type { PublicPort } from './public-port.js';
import type { TunnelSession } from './tunnel-session.js';
import type { Visitor } from './visitors.js';

/**
 * A tunnel on this server. It outlives a client session while visitors are still carried: a client may lose its control
 * connection and come back without its streams noticing.
 */
export class Tunnel {
  readonly id: string;
  /** HMAC key of the wire protocol: whoever answers to it may carry the tunnel and fetch its visitors. */
  key: Buffer;
  maxVisitors: number;
  /** The client that carries it now. */
  session: TunnelSession | undefined;
  /** Open while there is a session. */
  publicPort: PublicPort | undefined;
  /** Visitors that the client has not fetched yet, by connection id; at most `WAITING_PER_TUNNEL_MAX`. */
  readonly waiting = new Map<string, Visitor>();
  /** Visitors whose stream runs; with those who wait at most `maxVisitors`. */
  readonly carried = new Set<Visitor>();

  constructor(grant: Grant) {
    this.id = grant.tunnelId;
    this.key = keyOf(grant);
    this.maxVisitors = maxVisitorsOf(grant);
  }

  /** Takes over what a newer grant says. */
  update(grant: Grant): void {
    this.key = keyOf(grant);
    this.maxVisitors = maxVisitorsOf(grant);
  }

  /** Visitors waiting or carried. */
  get visitors(): number {
    return this.waiting.size + this.carried.size;
  }

  /** Whether nothing is left of it. */
  get isIdle(): boolean {
    return this.session === undefined && this.visitors === 0;
  }
}

function keyOf({ key }: Grant): Buffer {
  return Buffer.from(key, 'hex');
}

function maxVisitorsOf({ maxConnections }: Grant): number {
  return maxConnections ?? CONNECTIONS_PER_TUNNEL_MAX;
}
