import { z } from 'zod';

import { PageQuery } from '../platform/http/page.js';

/** A client that carries a tunnel, or has carried it. */
export const ClientSessionView = z.object({
  id: z.guid(),
  epoch: z.int().describe('Grows with each session of the tunnel'),
  serverId: z.string(),
  clientAddress: z.string().nullable().describe('null: the bore-server let it in while the control plane was away'),
  connectedAt: z.iso.datetime(),
  disconnectedAt: z.iso.datetime().nullable().describe('null: it carries the tunnel now'),
});
export type ClientSessionView = z.infer<typeof ClientSessionView>;

export const ListClientSessionsQuery = PageQuery;
export type ListClientSessionsQuery = z.output<typeof ListClientSessionsQuery>;

/** Where a session stands in the list, newest first: its epoch. */
export const EpochText = z
  .string()
  .regex(/^\d{1,10}$/)
  .transform(Number)
  .pipe(z.int().max(2_147_483_647));
