/** What bore-servers report of visitors' connections: usage, and a record of each. Part of the heartbeat (plane-api.ts). */
import { z } from 'zod';

/** Why a visitor's connection ended: who, or what, ended it first. */
export const ConnectionEndReason = z.enum([
  /** The visitor finished (FIN). */
  'visitor_closed',
  /** The visitor's connection broke. */
  'visitor_reset',
  /** The client finished (FIN), after it had sent something. */
  'client_closed',
  /** The client's connection for this visitor broke. */
  'client_reset',
  /** The client closed without a byte: as a rule nothing listened on its local port. */
  'local_refused',
  /** The client did not come for the visitor in time. */
  'not_fetched',
  /** The client vanished, or its tunnel was taken over. */
  'client_lost',
  /** Nothing moved for the idle time. */
  'idle',
  /** One side had finished, and then nothing moved for the linger time. */
  'linger',
  /** A limit of the tunnel or the server: the visitor was not let in. */
  'limit',
  /** The tunnel's networks exclude the visitor, from the start or since a change. */
  'denied',
  /** The tunnel was closed, its token rotated, or its client sent away by its owner. */
  'revoked',
  /** The bore-server stopped. */
  'drain',
]);
export type ConnectionEndReason = z.infer<typeof ConnectionEndReason>;

/** What a clock can say; the database knows no year 0, and a report that it refuses would be repeated for ever. */
const Instant = z.iso.datetime().refine((text) => !text.startsWith('0000'), 'must not lie before our era');

/** One visitor's connection, when it has ended. */
export const ConnectionRecord = z.strictObject({
  id: z.guid(),
  tunnelId: z.guid(),
  visitorAddress: z.union([z.ipv4(), z.ipv6()]),
  visitorPort: z.int().min(0).max(65_535),
  startedAt: Instant,
  endedAt: Instant,
  /** Until the client had fetched it, in milliseconds; null: it never did. */
  setupMs: z.number().min(0).nullable(),
  /** Bytes from the visitor, and to it. */
  bytesIn: z.int().min(0),
  bytesOut: z.int().min(0),
  reason: ConnectionEndReason,
});
export type ConnectionRecord = z.infer<typeof ConnectionRecord>;

/** Usage of one tunnel since the report before. */
export const UsageDelta = z.strictObject({
  tunnelId: z.guid(),
  bytesIn: z.int().min(0),
  bytesOut: z.int().min(0),
  /** Visitors whose stream began. */
  connections: z.int().min(0),
});
export type UsageDelta = z.infer<typeof UsageDelta>;

/** Records in one report; more wait for the next, which then comes at once. */
export const REPORT_CONNECTIONS_MAX = 2_000;

/**
 * What happened since the report before. A report is sent again, unchanged, until it is acknowledged, and is applied
 * once: only with a sequence above the last one applied of the same reporter (G4).
 */
export const Report = z.strictObject({
  /** Names a bore-server's book of account; kept across restarts as long as its state file is. */
  reporterId: z.guid(),
  sequence: z.int().min(1),
  usage: z.array(UsageDelta).max(65_535),
  connections: z.array(ConnectionRecord).max(REPORT_CONNECTIONS_MAX),
});
export type Report = z.infer<typeof Report>;
