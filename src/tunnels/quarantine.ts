import { z } from 'zod';

import { PageQuery } from '../platform/http/page.js';
import { ListenPort, ServerId } from '../protocol/plane-api.js';

/** A public port that nobody gets for a time, and why. */
export const QuarantinedPortView = z.object({
  serverId: z.string(),
  port: z.int(),
  until: z.iso.datetime(),
  reason: z.string(),
  tunnelId: z.guid().nullable().describe('The tunnel that had it'),
  userId: z.guid().nullable().describe('Whose that was'),
  createdBy: z.guid().nullable(),
  createdAt: z.iso.datetime(),
});
export type QuarantinedPortView = z.infer<typeof QuarantinedPortView>;

export const ListQuarantineQuery = PageQuery.extend({
  serverId: ServerId.optional(),
  userId: z.guid().optional(),
});
export type ListQuarantineQuery = z.output<typeof ListQuarantineQuery>;

/** Names a port of a server. */
export interface PortKey {
  readonly serverId: string;
  readonly port: number;
}

export function keyOfPort({ serverId, port }: PortKey): string {
  return `${serverId} ${port}`;
}

/** Reads what {@link keyOfPort} wrote. */
export const PortKeyText = z
  .string()
  .transform((text) => {
    const [serverId, port, ...rest] = text.split(' ');
    return rest.length === 0 ? { serverId, port: Number(port) } : null;
  })
  .pipe(z.object({ serverId: ServerId, port: ListenPort }));
