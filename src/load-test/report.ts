import { P95_MS_MAX, P99_MS_MAX, SUCCESS_PERCENT_MIN } from './limits.js';
import type { Measurements, Summary } from './measurements.js';

/** What a run came to. The JSON file holds just this. */
export interface Report {
  readonly target: string;
  readonly users: number;
  readonly seconds: number;
  readonly interrupted: boolean;
  readonly successPercent: number;
  readonly requestsPerSecond: number;
  readonly total: Summary;
  readonly routes: readonly Summary[];
  readonly failures: Readonly<Record<string, number>>;
  /** Events that listeners were sent. */
  readonly events: number;
  readonly thresholds: readonly Threshold[];
  readonly passed: boolean;
}

interface Threshold {
  readonly what: string;
  readonly is: number;
  readonly limit: number;
  readonly met: boolean;
}

export interface Run {
  readonly target: string;
  readonly users: number;
  readonly seconds: number;
  readonly interrupted: boolean;
  readonly events: number;
  readonly measurements: Measurements;
}

export function reportOf({ measurements, ...run }: Run): Report {
  const total = measurements.total();
  const successPercent = total.count === 0 ? 0 : ((total.count - total.failed) / total.count) * 100;
  const thresholds = [
    { what: 'success, %', is: successPercent, limit: SUCCESS_PERCENT_MIN, met: successPercent > SUCCESS_PERCENT_MIN },
    { what: 'P95, ms', is: total.p95Ms, limit: P95_MS_MAX, met: total.p95Ms < P95_MS_MAX },
    { what: 'P99, ms', is: total.p99Ms, limit: P99_MS_MAX, met: total.p99Ms < P99_MS_MAX },
  ];
  return {
    ...run,
    successPercent,
    requestsPerSecond: total.count / run.seconds,
    total,
    routes: measurements.routes(),
    failures: measurements.failures(),
    thresholds,
    passed: !run.interrupted && thresholds.every(({ met }) => met),
  };
}

/** For people. */
export function textOf(report: Report): string {
  const { target, users, seconds, total, routes, events, failures, thresholds, requestsPerSecond } = report;
  const row = ({ name, count, failed, p50Ms, p95Ms, p99Ms, p999Ms, maxMs }: Summary): string =>
    [name.padEnd(26), count, failed, ...[p50Ms, p95Ms, p99Ms, p999Ms, maxMs].map((ms) => ms.toFixed(1))]
      .map((cell) => String(cell).padStart(9))
      .join(' ');
  return [
    '',
    `${target}: ${users} users, ${seconds.toFixed(1)} s, ${requestsPerSecond.toFixed(1)} requests/s, ${events} events`,
    '',
    [
      'ms since they were due'.padEnd(26),
      ...['requests', 'failed', 'P50', 'P95', 'P99', 'P99.9', 'max'].map((head) => head.padStart(9)),
    ].join(' '),
    ...routes.map(row),
    row(total),
    '',
    ...Object.entries(failures).map(([reason, count]) => `failed ${count} times: ${reason}`),
    ...thresholds.map(
      ({ what, is, limit, met }) => `${met ? 'met   ' : 'MISSED'} ${what}: ${is.toFixed(2)} (limit ${limit})`,
    ),
    report.interrupted ? 'interrupted' : report.passed ? 'passed' : 'FAILED',
    '',
  ].join('\n');
}
