import type { Socket } from 'node:net';

import type { ConnectionEndReason, ConnectionRecord } from '../protocol/reports.js';
import type { Stream } from '../relay/stream.js';
import type { Authority } from './fences.js';
import type { Origin } from './proxied-socket.js';
import { encodeProxyHeader } from './proxy-header.js';
import type { Tunnel } from './tunnel.js';

/** A visitor who is here: first waiting to be fetched by the client, then carried. */
export interface Visitor {
  readonly id: string;
  readonly socket: Socket;
  readonly origin: Origin;
  readonly tunnel: Tunnel;
  readonly startedAt: Date;
  readonly arrivedAt: number;
  /** Runs while the visitor waits. */
  readonly timer: NodeJS.Timeout;
  /** Once it is carried. */
  stream: Stream | undefined;
  /** How the client was let in that fetched it. */
  fetchedBy: Authority | undefined;
  setupMs: number | null;
  readonly bytes: { in: number; out: number };
}

/** What is written down of a visitor who is gone, or was not let in. */
export function recordOf(
  {
    id,
    tunnel,
    origin,
    startedAt,
    setupMs,
    bytes,
  }: Pick<Visitor, 'id' | 'tunnel' | 'origin' | 'startedAt' | 'setupMs' | 'bytes'>,
  reason: ConnectionEndReason,
  endedAt = new Date(),
): ConnectionRecord {
  return {
    id,
    tunnelId: tunnel.id,
    visitorAddress: origin.address,
    visitorPort: origin.port,
    startedAt: startedAt.toISOString(),
    endedAt: endedAt.toISOString(),
    setupMs,
    bytesIn: bytes.in,
    bytesOut: bytes.out,
    reason,
  };
}

/** The header that tells the local service who its visitor is, where the owner wants it. */
export function prefaceOf({ tunnel, origin, socket }: Visitor): Buffer | undefined {
  if (tunnel.proxyProtocol === null) return undefined;
  return encodeProxyHeader(tunnel.proxyProtocol, {
    sourceAddress: origin.address,
    sourcePort: origin.port,
    destinationAddress: socket.localAddress ?? '0.0.0.0',
    destinationPort: socket.localPort ?? 0,
  });
}
