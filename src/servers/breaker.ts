import { z } from 'zod';

import { ServerId } from '../protocol/plane-api.js';

/** A circuit breaker's counts over its last ten seconds. */
export const BreakerStats = z.object({
  calls: z.int(),
  successes: z.int(),
  failures: z.int(),
  timeouts: z.int(),
  rejects: z.int().describe('Not tried, because it was open'),
  latencyMeanMs: z.number(),
});

/** One backend's circuit breaker of one bore-server, as that backend says. */
export const BreakerState = z.object({
  serverId: z.string(),
  state: z
    .enum(['closed', 'open', 'half-open'])
    .describe(
      'open: this backend does not call the server; half-open: it tries it. It places no tunnel there before the breaker is closed',
    ),
  stats: BreakerStats,
});
export type BreakerState = z.infer<typeof BreakerState>;

/** The same, as administrators see it on any backend. */
export const BreakerView = BreakerState.extend({ backendId: z.guid(), updatedAt: z.iso.datetime() });
export type BreakerView = z.infer<typeof BreakerView>;

export const BreakerStatsView = z.object({
  backends: z.array(z.guid()).describe('Backends that run'),
  breakers: z.array(BreakerView).describe('Of each backend, one for each server that it has called'),
});
export type BreakerStatsView = z.infer<typeof BreakerStatsView>;

export const ResetBreakersRequest = z.strictObject({ serverId: ServerId.optional().describe('Left out: of all') });
export type ResetBreakersRequest = z.output<typeof ResetBreakersRequest>;

export const ResetBreakersAnswer = z.object({
  reset: z.int().describe('Breakers that are being closed, over all backends; done within two seconds'),
});
export type ResetBreakersAnswer = z.infer<typeof ResetBreakersAnswer>;
