import { build, type Histogram } from 'hdr-histogram-js';

import { REASONS_MAX } from './limits.js';

/** Latencies are kept in µs to three digits, up to an hour: what a stalled platform can come to within a long test. */
const HIGHEST_US = 3_600_000_000;

/** One kind of request, or all together. */
export interface Summary {
  readonly name: string;
  readonly count: number;
  readonly failed: number;
  /** Of those that succeeded and those that failed. */
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  readonly maxMs: number;
}

class Series {
  readonly histogram: Histogram = build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: HIGHEST_US,
    numberOfSignificantValueDigits: 3,
  });
  failed = 0;

  add(ms: number, ok: boolean): void {
    this.histogram.recordValue(Math.min(HIGHEST_US, Math.max(1, Math.round(ms * 1_000))));
    if (!ok) this.failed++;
  }

  summary(name: string): Summary {
    const at = (percentile: number) => this.histogram.getValueAtPercentile(percentile) / 1_000;
    return {
      name,
      count: this.histogram.totalCount,
      failed: this.failed,
      p50Ms: at(50),
      p95Ms: at(95),
      p99Ms: at(99),
      p999Ms: at(99.9),
      maxMs: this.histogram.maxValue / 1_000,
    };
  }
}

/** How long what took, and what failed why. */
export class Measurements {
  /** As many as there are steps in the mix. */
  private readonly byRoute = new Map<string, Series>();
  private readonly all = new Series();
  private readonly reasons = new Map<string, number>();

  /** @param ms since the request was due, not since it was sent: what waits in line waits for the platform */
  add(route: string, ms: number, failure?: string): void {
    const series = this.byRoute.get(route) ?? new Series();
    this.byRoute.set(route, series);
    for (const each of [series, this.all]) each.add(ms, failure === undefined);
    if (failure === undefined) return;
    const known = this.reasons.has(failure) || this.reasons.size < REASONS_MAX;
    const reason = known ? failure : 'others';
    this.reasons.set(reason, (this.reasons.get(reason) ?? 0) + 1);
  }

  total(): Summary {
    return this.all.summary('all');
  }

  routes(): Summary[] {
    return [...this.byRoute].map(([name, series]) => series.summary(name)).sort((a, b) => a.name.localeCompare(b.name));
  }

  /** Why requests failed, and how many for each reason. */
  failures(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.reasons);
  }
}
