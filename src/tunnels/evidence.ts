import { z } from 'zod';

import { Instant } from '../platform/http/instant.js';
import { ServerId } from '../protocol/plane-api.js';

/** A month: what the ledger keeps by default, and what an enquiry names at most. */
const WINDOW_DAYS_MAX = 31;
const DAY_MS = 86_400_000;

export const EvidenceQuery = z
  .strictObject({
    serverId: ServerId,
    port: z.coerce.number().int().min(1).max(65_535).describe('Public port'),
    from: Instant,
    to: Instant,
  })
  .refine(({ from, to }) => from < to, { path: ['to'], message: 'must be later than from' })
  .refine(({ from, to }) => Date.parse(to) - Date.parse(from) <= WINDOW_DAYS_MAX * DAY_MS, {
    path: ['to'],
    message: `must be at most ${WINDOW_DAYS_MAX} days later than from`,
  });
export type EvidenceQuery = z.output<typeof EvidenceQuery>;

/** A tunnel that had the port at some time in the window. */
export const EvidenceTunnel = z.object({
  tunnelId: z.guid(),
  userId: z.guid(),
  email: z.string(),
  name: z.string().nullable(),
  createdAt: z.date(),
  closedAt: z.date().nullable(),
  closeReason: z.string().nullable(),
  /** Of the client that carried it last. */
  clientAddress: z.string().nullable(),
  connectedAt: z.date().nullable(),
});
export type EvidenceTunnel = z.infer<typeof EvidenceTunnel>;

/** What was done to such a tunnel over the API, and from where. */
export const EvidenceAction = z.object({
  tunnelId: z.string(),
  at: z.date(),
  action: z.string(),
  actorId: z.guid().nullable(),
  clientAddress: z.string().nullable(),
});
export type EvidenceAction = z.infer<typeof EvidenceAction>;

/** A client that carried such a tunnel at some time in the window. */
export const EvidenceSession = z.object({
  id: z.guid(),
  tunnelId: z.guid(),
  serverId: z.string(),
  epoch: z.int(),
  /** Null: the bore-server let it in without the control plane. */
  clientAddress: z.string().nullable(),
  connectedAt: z.date(),
  disconnectedAt: z.date().nullable(),
});
export type EvidenceSession = z.infer<typeof EvidenceSession>;

/** bigint of the database; never above 2^53 - 1. */
const Count = z.coerce.number().int();

/** A visitor's connection that was open at some time in the window, and has ended. */
export const EvidenceConnection = z.object({
  id: z.guid(),
  tunnelId: z.guid(),
  visitorAddress: z.string(),
  visitorPort: z.int(),
  startedAt: z.date(),
  endedAt: z.date(),
  bytesIn: Count,
  bytesOut: Count,
  reason: z.string(),
});
export type EvidenceConnection = z.infer<typeof EvidenceConnection>;
