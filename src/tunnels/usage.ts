import { z } from 'zod';

import { PlatformError } from '../platform/errors/error-register.js';
import { Instant } from '../platform/http/instant.js';

/** Forty days of hours, or all the days that are kept by default (USAGE_RETENTION_DAYS): 100 KB of answer. */
const BUCKETS_MAX = 1_000;

const SECONDS_OF = { hour: 3_600, day: 86_400 } as const;

/** Buckets shown when `from` is left out: a day of hours, a month of days. */
const BUCKETS_DEFAULT = { hour: 24, day: 30 } as const;

export const UsageQuery = z.strictObject({
  from: Instant.optional().describe(
    'Beginning of the first bucket is at this time or before; default: 24 hours, or 30 days, back',
  ),
  to: Instant.optional().describe('The last bucket begins before this time; default: now'),
  bucket: z.enum(['hour', 'day']).default('day').describe('Days are UTC'),
});
export type UsageQuery = z.output<typeof UsageQuery>;

const Figures = {
  bytesIn: z.int().describe('From visitors'),
  bytesOut: z.int().describe('To visitors'),
  connections: z.int().describe('Visitors whose stream began'),
};

/** What crossed a tunnel, by the time at which its bore-server reported it. */
export const UsageView = z.object({
  total: z.object(Figures).describe('Of the buckets shown'),
  buckets: z.array(z.object({ start: z.iso.datetime(), ...Figures })),
});
export type UsageView = z.infer<typeof UsageView>;

/** Equal stretches of time, counted from 1970: bucket n begins at n × `seconds`. */
export interface Buckets {
  readonly seconds: number;
  readonly first: number;
  readonly count: number;
}

/**
 * The buckets that a query asks for.
 * @throws PlatformError VALIDATION_FAILED when they are none, or too many
 */
export function bucketsOf({ from, to, bucket }: UsageQuery, now = new Date()): Buckets {
  const seconds = SECONDS_OF[bucket];
  const indexOf = (text: string) => Date.parse(text) / 1000 / seconds;
  const end = Math.ceil(indexOf(to ?? now.toISOString()));
  const first = from === undefined ? Math.max(0, end - BUCKETS_DEFAULT[bucket]) : Math.floor(indexOf(from));
  const count = end - first;
  if (count < 1) throw invalid('must be before to');
  if (count > BUCKETS_MAX) throw invalid(`is ${count} buckets before to; at most ${BUCKETS_MAX} are shown at once`);
  return { seconds, first, count };
}

/** Usage in one bucket; a bucket without any has no row. */
export interface BucketRow {
  readonly bucket: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly connections: number;
}

/** Shows every bucket, the empty ones too, and their sum. */
export function viewUsage({ seconds, first, count }: Buckets, rows: readonly BucketRow[]): UsageView {
  const rowOf = new Map(rows.map((row) => [row.bucket, row]));
  const buckets = Array.from({ length: count }, (_, i) => {
    const { bytesIn = 0, bytesOut = 0, connections = 0 } = rowOf.get(first + i) ?? {};
    return { start: new Date((first + i) * seconds * 1000).toISOString(), bytesIn, bytesOut, connections };
  });
  // a count stands still where JSON's numbers end, as it does in the books (bytes_max)
  const sum = (figure: keyof typeof Figures) =>
    Math.min(
      buckets.reduce((total, bucket) => total + bucket[figure], 0),
      Number.MAX_SAFE_INTEGER,
    );
  return {
    total: { bytesIn: sum('bytesIn'), bytesOut: sum('bytesOut'), connections: sum('connections') },
    buckets,
  };
}

function invalid(message: string): PlatformError {
  return new PlatformError('VALIDATION_FAILED', { errors: [{ path: 'from', message }] });
}
