import { z } from 'zod';

import type { Server } from '../platform/database/generated/client.js';
import { ServerState } from '../platform/database/generated/enums.js';
import { PageQuery } from '../platform/http/page.js';
import { HostName, ListenPort, Location, ServerId } from '../protocol/plane-api.js';

/** What an administrator announces; the bore-server of that id makes it `online` when it registers. */
export const CreateServerRequest = z.strictObject({
  id: ServerId,
  host: HostName,
  port: ListenPort.optional().describe('Control port that clients connect to; stock bore clients know 7835 only'),
  location: Location,
  maxBandwidthMbps: z.int().min(1).max(1_000_000).optional(),
  maxConcurrentTunnels: z.int().min(1).max(65_535).optional(),
});
export type CreateServerRequest = z.output<typeof CreateServerRequest>;

/** What is left out stays. */
export const UpdateServerRequest = z
  .strictObject({
    host: HostName.optional().describe('Until the bore-server registers with another (--host)'),
    location: Location.optional().describe('Until the bore-server registers with another (--location)'),
    maxBandwidthMbps: z.int().min(1).max(1_000_000).optional(),
    maxConcurrentTunnels: z
      .int()
      .min(1)
      .max(65_535)
      .nullable()
      .optional()
      .describe('The bore-server’s own limit and its ports count too: the least of them. null: only those'),
    disabled: z
      .boolean()
      .optional()
      .describe('Out of service: its tunnels go offline, on the wire too, and its clients are refused'),
  })
  .refine((change) => Object.values(change).some((value) => value !== undefined), 'names nothing to change');
export type UpdateServerRequest = z.output<typeof UpdateServerRequest>;

export const ListServersQuery = PageQuery.extend({
  state: z.enum(ServerState).optional(),
  location: Location.optional(),
  sort: z.enum(['id', '-id']).default('id').describe('-: descending'),
});
export type ListServersQuery = z.output<typeof ListServersQuery>;

/** A bore-server as administrators see it. */
export const ServerView = z.object({
  id: z.string(),
  host: z.string(),
  port: z.int(),
  location: z.string(),
  state: z.enum(ServerState),
  drainRequested: z.boolean().describe('An administrator wants it drained'),
  maxBandwidthMbps: z.int(),
  maxConcurrentTunnels: z
    .int()
    .describe('What counts: the least of what an administrator set, what it names itself, and its ports'),
  maxConcurrentTunnelsSet: z.int().nullable().describe('What an administrator set'),
  openTunnels: z.int().describe('Tunnels that are not closed'),
  connections: z.int().describe('Visitor connections, as last reported'),
  bandwidthMbps: z.number().describe('Both directions added, as last reported'),
  portRange: z.object({ min: z.int(), max: z.int() }).nullable().describe('Known once the server has registered'),
  heartbeatAt: z.iso.datetime().nullable(),
  createdAt: z.iso.datetime(),
  version: z.int().describe('Grows with each change by an administrator; also sent as ETag'),
});
export type ServerView = z.infer<typeof ServerView>;

/** Shows a row; a lease that has ended makes the server `offline` before the job has written it down. */
export function viewServer(server: Server, now = new Date()): ServerView {
  const alive = server.state === 'disabled' || (server.leaseUntil !== null && server.leaseUntil > now);
  return {
    id: server.id,
    host: server.host,
    port: server.port,
    location: server.location,
    state: alive ? server.state : 'offline',
    drainRequested: server.drainRequested,
    maxBandwidthMbps: server.maxBandwidthMbps,
    maxConcurrentTunnels: server.maxTunnels,
    maxConcurrentTunnelsSet: server.maxTunnelsAdmin,
    openTunnels: server.openTunnels,
    connections: server.connections,
    bandwidthMbps: server.bandwidthMbps,
    portRange: server.portMin !== null && server.portMax !== null ? { min: server.portMin, max: server.portMax } : null,
    heartbeatAt: server.heartbeatAt?.toISOString() ?? null,
    createdAt: server.createdAt.toISOString(),
    version: server.version,
  };
}
