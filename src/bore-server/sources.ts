import { isIPv6 } from 'node:net';

import { SOURCES_MAX } from './limits.js';
import { unmapped } from './networks.js';

/**
 * What counts as one source: an IPv4 address, or the /64 network of an IPv6 address, which one subscriber has to itself
 * (RFC 6177).
 */
export function sourceOf(address: string | undefined): string {
  if (address === undefined) return '';
  const plain = unmapped(address);
  if (!isIPv6(plain)) return plain;
  const [before = [], after = []] = plain.split('::', 2).map((half) => (half === '' ? [] : half.split(':')));
  const zeros = Array.from({ length: Math.max(0, 8 - before.length - after.length) }, () => '0');
  return `${[...before, ...zeros, ...after].slice(0, 4).join(':')}::/64`;
}

/** How many of something each source has now. As large as the number of things counted, which others limit. */
export class CountBySource {
  private readonly counts = new Map<string, number>();

  of(source: string): number {
    return this.counts.get(source) ?? 0;
  }

  add(source: string): void {
    this.counts.set(source, this.of(source) + 1);
  }

  remove(source: string): void {
    const left = this.of(source) - 1;
    if (left > 0) this.counts.set(source, left);
    else this.counts.delete(source);
  }
}

/** A budget for each source that refills steadily, and holds at most one second's worth. */
export class RateBySource {
  private readonly budgets = new Map<string, { left: number; at: number }>();

  constructor(private readonly perSecond: number) {}

  /** Whether one more is within the rate; if so, it is taken. */
  take(source: string, now = performance.now()): boolean {
    const known = this.budgets.get(source);
    const left = known
      ? Math.min(this.perSecond, known.left + ((now - known.at) / 1000) * this.perSecond)
      : this.perSecond;
    const allowed = left >= 1;
    remember(this.budgets, source, { left: allowed ? left - 1 : left, at: now });
    return allowed;
  }
}

/** Counts failures by source in windows of fixed length, and blocks who has too many for a while. */
export class FailuresBySource {
  private readonly entries = new Map<string, { count: number; until: number; blockedUntil: number }>();

  /** @param max failures in `windowMs`; with the last of them the source is blocked for `blockMs` */
  constructor(
    private readonly max: number,
    private readonly windowMs: number,
    private readonly blockMs: number,
  ) {}

  isBlocked(source: string, now = performance.now()): boolean {
    return (this.entries.get(source)?.blockedUntil ?? 0) > now;
  }

  /** Counts a failure; true when the source is blocked by it. */
  add(source: string, now = performance.now()): boolean {
    const known = this.entries.get(source);
    const fresh = known !== undefined && known.until > now;
    const count = fresh ? known.count + 1 : 1;
    const blocks = count >= this.max && this.blockMs > 0;
    remember(this.entries, source, {
      count,
      until: fresh ? known.until : now + this.windowMs,
      blockedUntil: blocks ? now + this.blockMs : (known?.blockedUntil ?? 0),
    });
    return blocks;
  }
}

/** Puts an entry at the end of the map, where the newest are, and forgets the oldest of too many. */
function remember<T>(map: Map<string, T>, source: string, entry: T): void {
  map.delete(source);
  map.set(source, entry);
  const [oldest] = map.keys();
  if (map.size > SOURCES_MAX && oldest !== undefined) map.delete(oldest);
}
