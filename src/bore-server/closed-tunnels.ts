import { CLOSED_TUNNELS_MAX } from './limits.js';

/** Tunnels that were just closed by order: a grant that was asked for before must not bring them back. */
export class ClosedTunnels {
  /** Times are those of `performance.now()`; the oldest first. */
  private readonly closedAt = new Map<string, number>();

  add(tunnelId: string): void {
    this.closedAt.delete(tunnelId);
    this.closedAt.set(tunnelId, performance.now());
    const [oldest] = this.closedAt.keys();
    if (this.closedAt.size > CLOSED_TUNNELS_MAX && oldest !== undefined) this.closedAt.delete(oldest);
  }

  wasClosedSince(tunnelId: string, time: number): boolean {
    return (this.closedAt.get(tunnelId) ?? -1) >= time;
  }
}
