/** How much may pass at once after a pause: enough that timers of a millisecond do not matter, little against a second. */
const BURST_MS = 100;

/**
 * A rate for the bytes of one tunnel, over all its streams and both directions. It delays nothing by itself: whoever moved
 * bytes is told for how long to read no more, so that the senders' own flow control holds them back, and no buffer grows.
 *
 * Bytes are taken when they have been read already, so the level may fall below zero; the debt is the pause.
 */
export class Bandwidth {
  /** Bytes; `undefined`: no limit. */
  private perMs: number | undefined;
  private level = 0;
  private at = performance.now();

  /** @param mbps Mbit/s (10^6 bits); null: no limit */
  constructor(mbps: number | null) {
    this.set(mbps);
  }

  /** Changes the rate from now on. */
  set(mbps: number | null): void {
    const perMs = mbps === null ? undefined : (mbps * 1e6) / 8 / 1000;
    if (perMs === this.perMs) return;
    this.perMs = perMs;
    this.level = 0;
    this.at = performance.now();
  }

  /** Takes what has been moved, and returns for how many milliseconds its mover must pause. */
  take(bytes: number): number {
    if (this.perMs === undefined) return 0;
    const now = performance.now();
    this.level = Math.min(BURST_MS * this.perMs, this.level + (now - this.at) * this.perMs) - bytes;
    this.at = now;
    return this.level >= 0 ? 0 : -this.level / this.perMs;
  }
}
