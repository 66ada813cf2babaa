import { z } from 'zod';

import { ServerState } from '../platform/database/generated/enums.js';

/** More servers than any fleet has; `truncated` says when there are more. */
export const FLEET_MAX = 1_000;

/** A bore-server as capacity is planned with it. */
export const ServerLoad = z.object({
  id: z.string(),
  location: z.string(),
  state: z.enum(ServerState),
  drainRequested: z.boolean(),
  leaseSeconds: z.number().nullable().describe('Until it counts as lost; null: it has no lease'),
  heartbeatAt: z.iso.datetime().nullable(),
  openTunnels: z.int(),
  maxConcurrentTunnels: z.int(),
  connections: z.int(),
  bandwidthMbps: z.number(),
  maxBandwidthMbps: z.int(),
  score: z
    .number()
    .describe('The fuller of tunnels and bandwidth, 1 is full: the lowest in a location gets the next tunnel'),
  reachable: z.boolean().describe('By the backend that answers: its circuit breaker is closed'),
});
export type ServerLoad = z.infer<typeof ServerLoad>;

const Percent = z.number().describe('Open tunnels as a share of what may be open, in percent');

export const AdminCapacityView = z.object({
  total: z.int().describe('Tunnels that may be open at once, the reserved share included'),
  reserved: z.int().describe('Of these, for administrators only'),
  open: z.int(),
  free: z.int().describe('For users, on servers that can be reached'),
  utilizationPercent: Percent,
  locations: z.array(
    z.object({
      location: z.string(),
      servers: z.int().describe('That take new tunnels'),
      capacity: z.int().describe('Of these'),
      open: z.int().describe('On these'),
      utilizationPercent: Percent,
    }),
  ),
  servers: z.array(ServerLoad),
  truncated: z.boolean(),
});
export type AdminCapacityView = z.infer<typeof AdminCapacityView>;

const Count = z.int();

export const FleetView = z.object({
  servers: z.object({ online: Count, draining: Count, offline: Count, disabled: Count }),
  tunnels: z.object({ pending: Count, active: Count, offline: Count }),
  connections: z.int().describe('Of visitors, as last reported'),
  bandwidthMbps: z.number().describe('Both directions added, as last reported'),
  items: z.array(ServerLoad),
  truncated: z.boolean(),
});
export type FleetView = z.infer<typeof FleetView>;

/** Open tunnels as a share, in percent, to a tenth; 100 when there is nothing to have a share of. */
export function percentOf(open: number, capacity: number): number {
  return capacity === 0 ? 100 : Math.round((open / capacity) * 1000) / 10;
}

/** Locations of servers that take new tunnels. */
export function locationsOf(servers: readonly ServerLoad[]): AdminCapacityView['locations'] {
  const takers = servers.filter(({ state, reachable }) => state === 'online' && reachable);
  return [...new Set(takers.map(({ location }) => location))].sort().map((location) => {
    const here = takers.filter((server) => server.location === location);
    const capacity = here.reduce((sum, { maxConcurrentTunnels }) => sum + maxConcurrentTunnels, 0);
    const open = here.reduce((sum, { openTunnels }) => sum + openTunnels, 0);
    return { location, servers: here.length, capacity, open, utilizationPercent: percentOf(open, capacity) };
  });
}
