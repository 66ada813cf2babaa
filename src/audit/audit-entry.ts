import { z } from 'zod';

import { Instant } from '../platform/http/instant.js';
import { PageQuery } from '../platform/http/page.js';
import { AuditAction } from './audit-action.js';

export const ListAuditQuery = PageQuery.extend({
  action: AuditAction.optional(),
  actorId: z.guid().optional().describe('Who did it'),
  userId: z.guid().optional().describe('Whose account it is about'),
  targetType: z.enum(['user', 'session', 'api_key', 'server', 'tunnel']).optional(),
  targetId: z
    .string()
    .min(1)
    .max(128)
    .regex(/^\P{Cc}*$/u, 'must not hold control characters')
    .optional(),
  from: Instant.optional().describe('At this time or later'),
  to: Instant.optional().describe('Before this time'),
});
export type ListAuditQuery = z.output<typeof ListAuditQuery>;

/** An entry of the audit log. */
export const AuditEntryView = z.object({
  id: z.string(),
  at: z.iso.datetime(),
  // as written: an entry may be of a later version that knows more actions
  action: z.string(),
  actorId: z.guid().nullable().describe('null: nobody who was logged in, or the system'),
  actorEmail: z.string().nullable().describe('As it is now; null when the account is gone'),
  apiKeyId: z.string().nullable().describe('The key that it was done with; null: a login'),
  targetType: z.string().nullable(),
  targetId: z.string().nullable(),
  userId: z.guid().nullable(),
  clientAddress: z.string().nullable(),
  userAgent: z.string().nullable(),
  requestId: z.string().nullable(),
  details: z.record(z.string(), z.unknown()),
});
export type AuditEntryView = z.infer<typeof AuditEntryView>;

/** Where an entry stands in the list: its number, a bigint of the database. */
export const AuditKey = z.string().regex(/^\d{1,18}$/);
