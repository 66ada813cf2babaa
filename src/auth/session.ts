import { z } from 'zod';

import { pageOf } from '../platform/http/page.js';
import type { SessionRow } from './auth-sessions.repository.js';

/** A login as its owner sees it. */
export const SessionView = z.object({
  id: z.guid(),
  createdAt: z.iso.datetime(),
  lastUsedAt: z.iso.datetime().describe('To the minute'),
  expiresAt: z.iso.datetime().describe('At the latest; sooner when nobody uses it'),
  userAgent: z.string().nullable().describe('Of the request that began it, cut at 200 characters'),
  clientAddress: z.string().nullable().describe('Of the request that began it'),
  current: z.boolean().describe('Whether this request came with it'),
});
export type SessionView = z.infer<typeof SessionView>;

export const SessionPage = pageOf(SessionView);

export function viewSession(row: SessionRow, currentId: string): SessionView {
  return {
    ...row,
    createdAt: row.createdAt.toISOString(),
    lastUsedAt: row.lastUsedAt.toISOString(),
    expiresAt: row.expiresAt.toISOString(),
    current: row.id === currentId,
  };
}
