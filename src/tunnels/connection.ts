import { z } from 'zod';

import { Instant } from '../platform/http/instant.js';
import { PageQuery } from '../platform/http/page.js';
import { ConnectionEndReason } from '../protocol/reports.js';

/** A visitor's connection that has ended, as the tunnel's owner sees it. */
export const ConnectionView = z.object({
  id: z.guid(),
  visitorAddress: z.string(),
  visitorPort: z.int(),
  startedAt: z.iso.datetime(),
  endedAt: z.iso.datetime(),
  setupMs: z.number().nullable().describe('Until the client had fetched it; null: it never did'),
  bytesIn: z.int().describe('From the visitor'),
  bytesOut: z.int().describe('To the visitor'),
  reason: ConnectionEndReason.describe('Who, or what, ended it'),
});
export type ConnectionView = z.infer<typeof ConnectionView>;

export const ListConnectionsQuery = PageQuery.extend({
  reason: ConnectionEndReason.optional(),
  from: Instant.optional().describe('Ended at this time or later'),
  to: Instant.optional().describe('Ended before this time'),
});
export type ListConnectionsQuery = z.output<typeof ListConnectionsQuery>;

/** Where a connection stands in the list: newest end first, and then by id. */
export interface ConnectionKey {
  readonly endedAt: string;
  readonly id: string;
}

export function keyOfConnection({ endedAt, id }: ConnectionKey): string {
  return `${endedAt} ${id}`;
}

/** Reads what {@link keyOfConnection} wrote. */
export const ConnectionKeyText = z
  .string()
  .transform((text) => {
    const [endedAt, id, ...rest] = text.split(' ');
    return rest.length === 0 ? { endedAt, id } : null;
  })
  .pipe(z.object({ endedAt: Instant, id: z.guid() }));
