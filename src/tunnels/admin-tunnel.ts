import { z } from 'zod';

import { Instant } from '../platform/http/instant.js';
import { PageQuery } from '../platform/http/page.js';
import { Reason } from '../platform/http/reason.js';
import { ServerId } from '../protocol/plane-api.js';
import { QuarantineHours } from '../users/admin-user.js';
import { type PlacedTunnel, TunnelView, viewTunnel } from './tunnel.js';

export const ListAdminTunnelsQuery = PageQuery.extend({
  state: z
    .enum(['open', 'pending', 'active', 'offline', 'closed', 'all'])
    .default('open')
    .describe('open: pending, active or offline'),
  userId: z.guid().optional(),
  serverId: ServerId.optional(),
  port: z.coerce.number().int().min(1).max(65_535).optional().describe('Public port'),
  since: Instant.optional().describe('Opened at this time or later'),
  sort: z.enum(['createdAt', '-createdAt']).default('-createdAt').describe('-: descending'),
});
export type ListAdminTunnelsQuery = z.output<typeof ListAdminTunnelsQuery>;

/** Where a tunnel stands in the list: ids are as old as their tunnels. */
export const adminTunnelKey = z.guid();

export const SuspendTunnelRequest = z.strictObject({
  reason: Reason,
  quarantineHours: QuarantineHours.optional().describe(
    'Keeps its port from everybody, also when it was closed in so many hours before; default: ABUSE_QUARANTINE_HOURS',
  ),
  suspendUser: z
    .boolean()
    .default(false)
    .describe('Suspends its owner too: closes all their tunnels, with the same quarantine'),
});
export type SuspendTunnelRequest = z.output<typeof SuspendTunnelRequest>;

/** A tunnel as administrators see it. Neither its token nor its key is in any answer. */
export const AdminTunnelView = TunnelView.extend({
  userId: z.guid(),
  ownerEmail: z.string(),
});
export type AdminTunnelView = z.infer<typeof AdminTunnelView>;

/** A row with its server and its owner. */
export type OwnedTunnel = PlacedTunnel & { user: { email: string } };

/** `bandwidthMax`: MAX_BANDWIDTH_PER_TUNNEL. */
export function viewAdminTunnel(tunnel: OwnedTunnel, bandwidthMax: number): AdminTunnelView {
  return { ...viewTunnel(tunnel, bandwidthMax), userId: tunnel.userId, ownerEmail: tunnel.user.email };
}
