import { z } from 'zod';

import type { Server } from '../platform/database/generated/client.js';
import { ServerState } from '../platform/database/generated/enums.js';
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

/** A bore-server as administrators see it. */
export const ServerView = z.object({
  id: z.string(),
  host: z.string(),
  port: z.int(),
  location: z.string(),
  state: z.enum(ServerState),
  drainRequested: z.boolean().describe('An administrator wants it drained'),
  maxBandwidthMbps: z.int(),
  maxConcurrentTunnels: z.int(),
  openTunnels: z.int().describe('Tunnels that are not closed'),
  connections: z.int().describe('Visitor connections, as last reported'),
  bandwidthMbps: z.number().describe('Both directions added, as last reported'),
  portRange: z.object({ min: z.int(), max: z.int() }).nullable().describe('Known once the server has registered'),
  heartbeatAt: z.iso.datetime().nullable(),
  createdAt: z.iso.datetime(),
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
    openTunnels: server.openTunnels,
    connections: server.connections,
    bandwidthMbps: server.bandwidthMbps,
    portRange: server.portMin !== null && server.portMax !== null ? { min: server.portMin, max: server.portMax } : null,
    heartbeatAt: server.heartbeatAt?.toISOString() ?? null,
    createdAt: server.createdAt.toISOString(),
  };
}
