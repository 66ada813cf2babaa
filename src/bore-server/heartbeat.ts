/** What a heartbeat says of this server. */
import type { Grant, HeartbeatRequest } from '../protocol/plane-api.js';
import type { Tunnel } from './tunnel.js';
import type { Visitors } from './visitors.js';

/** More are told of later: a grant lives for a quarter of an hour, a stream without a session rarely longer. */
const KEPT_MAX = 65_535;

/** Which sessions carry these tunnels. */
export function sessionsOf(tunnels: Iterable<Tunnel>): HeartbeatRequest['sessions'] {
  return [...tunnels].flatMap(({ session, settingsVersion }) =>
    session ? [{ ...session.ref, keyVersion: session.keyVersion, settings: settingsVersion }] : [],
  );
}

/** What is here of tunnels without a session: grants, and streams that have outlived theirs. */
export function keptOf(tunnels: Iterable<Tunnel>, grants: readonly Grant[]): NonNullable<HeartbeatRequest['kept']> {
  const kept = new Map(
    grants.map(({ tunnelId, epoch, keyVersion, settings }) => [
      tunnelId,
      { tunnelId, epoch, keyVersion, settings: settings.version },
    ]),
  );
  for (const { id, session, authority, settingsVersion } of tunnels) {
    if (session) kept.delete(id);
    else kept.set(id, { tunnelId: id, ...authority, settings: settingsVersion });
  }
  return [...kept.values()].slice(0, KEPT_MAX);
}

/** Measures load between two heartbeats. */
export class LoadMeter {
  private last = { at: performance.now(), bytes: 0 };

  /** Load since the last call. */
  read({ bytes: { in: bytesIn, out: bytesOut }, count }: Visitors): HeartbeatRequest['load'] {
    const now = { at: performance.now(), bytes: bytesIn + bytesOut };
    const seconds = Math.max(0.001, (now.at - this.last.at) / 1000);
    const bandwidthMbps = ((now.bytes - this.last.bytes) * 8) / 1e6 / seconds;
    this.last = now;
    return { connections: count, bandwidthMbps };
  }
}
