import { Inject, Injectable } from '@nestjs/common';
import { z } from 'zod';

import { CONFIG, type Config } from '../platform/config/config.js';
import { Database } from '../platform/database/database.js';
import { Prisma, type Server } from '../platform/database/generated/client.js';
import { Peer, PEERS_MAX } from '../protocol/peers.js';
import type { RegisterRequest } from '../protocol/plane-api.js';
import type { ListServersQuery } from './server.js';

/** A server was registered: the limits that count, and whether this is a new process. Or its ports are another's. */
const Registration = z.union([
  z.object({ holder: z.null(), maxTunnels: z.int(), newInstance: z.boolean() }),
  z.object({ holder: z.string() }),
]);

/** More servers than any fleet has. */
const WITH_ADMIN_SURFACE_MAX = 1_000;
const WithAdminSurface = z.object({ id: z.string(), location: z.string(), state: z.string(), adminUrl: z.string() });

/** bore-servers in the database. All times are the database's clock: backends' clocks may differ. */
@Injectable()
export class ServersRepository {
  constructor(
    private readonly database: Database,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  find(id: string): Promise<Server | null> {
    return this.database.server.findUnique({ where: { id, deletedAt: null } });
  }

  /** Those that have said where their admin surface is and are not disabled, by id. A lease that has ended counts as offline at once. */
  withAdminSurface(): Promise<z.infer<typeof WithAdminSurface>[]> {
    return this.database.rows(
      WithAdminSurface,
      Prisma.sql`
        SELECT id, location, CASE WHEN lease_until > now() THEN state::text ELSE 'offline' END AS state, admin_url AS "adminUrl"
        FROM servers WHERE deleted_at IS NULL AND state <> 'disabled' AND admin_url IS NOT NULL
        ORDER BY id LIMIT ${WITH_ADMIN_SURFACE_MAX}`,
    );
  }

  /** One more than the page holds, by id, beginning behind `after`. */
  list({ limit, location, state, sort }: ListServersQuery, after: string | undefined): Promise<Server[]> {
    const ascending = sort === 'id';
    const alive = { leaseUntil: { gt: new Date() } };
    return this.database.server.findMany({
      where: {
        deletedAt: null,
        ...(after !== undefined && { id: ascending ? { gt: after } : { lt: after } }),
        ...(location !== undefined && { location }),
        // as viewServer shows them
        ...(state === 'disabled' && { state }),
        ...(state === 'offline' && {
          state: { not: 'disabled' },
          OR: [{ state }, { leaseUntil: null }, { NOT: alive }],
        }),
        ...((state === 'online' || state === 'draining') && { state, ...alive }),
      },
      orderBy: { id: ascending ? 'asc' : 'desc' },
      take: limit + 1,
    });
  }

  /**
   * A bore-server presents itself: creates or updates its row, gives it a lease, and fences the process before it.
   * What the server names replaces what stood there; what it leaves out stays, or is the default. Of the limits of its
   * tunnels the least counts: an administrator's, the server's own, its ports. A deleted one is back in the register.
   * Nothing changes when its ports are those of another server that it shares a public name with: `holder`, then.
   */
  async register(request: RegisterRequest): Promise<z.infer<typeof Registration>> {
    const { config } = this;
    const { peer } = request;
    // a server cannot carry more tunnels than it has ports
    const ports = request.portRange.max - request.portRange.min + 1;
    const named = request.maxTunnels ?? null;
    const initialMaxTunnels = Math.min(named ?? config.MAX_TUNNELS_PER_SERVER, ports);
    const bandwidth = request.maxBandwidthMbps ?? null;
    const initialBandwidth = bandwidth ?? initialMaxTunnels * config.MAX_BANDWIDTH_PER_TUNNEL;
    const [registration] = await this.database.rows(
      Registration,
      Prisma.sql`
        WITH before AS (SELECT instance_id FROM servers WHERE id = ${request.serverId}),
        claim AS MATERIALIZED (SELECT CASE WHEN ${peer !== undefined} THEN claim_port_range(
          ${request.serverId}, ${request.host ?? null}, ${config.BORE_SERVER_HOST},
          ${request.portRange.min}::int, ${request.portRange.max}::int) END AS holder),
        registered AS (INSERT INTO servers AS s (
          id, host, port, location, state, max_tunnels, max_tunnels_named, max_bandwidth_mbps,
          port_min, port_max, instance_id, admin_url, peer_host, peer_port, lease_until, heartbeat_at
        ) SELECT
          ${request.serverId}, ${request.host ?? config.BORE_SERVER_HOST}, ${request.controlPort}::int, ${request.location ?? 'default'}, 'online',
          ${initialMaxTunnels}::int, ${named}::int, ${initialBandwidth}::int,
          ${request.portRange.min}::int, ${request.portRange.max}::int, ${request.instanceId}::uuid, ${request.adminUrl},
          ${peer?.host ?? null}, ${peer?.port ?? null}::int,
          now() + make_interval(secs => ${config.SERVER_LEASE_SECONDS}), now()
        FROM claim WHERE claim.holder IS NULL
        ON CONFLICT (id) DO UPDATE SET
          host = coalesce(${request.host ?? null}, s.host),
          port = excluded.port,
          location = coalesce(${request.location ?? null}, s.location),
          state = CASE WHEN s.state = 'disabled' THEN s.state WHEN s.drain_requested THEN 'draining' ELSE 'online' END,
          -- the limits are kept apart: what counts now must not be what is remembered when one of them goes
          max_tunnels = least(coalesce(least(s.max_tunnels_admin, ${named}::int), ${config.MAX_TUNNELS_PER_SERVER}::int), ${ports}::int),
          max_tunnels_named = ${named}::int, deleted_at = NULL,
          max_bandwidth_mbps = coalesce(${bandwidth}::int, s.max_bandwidth_mbps),
          port_min = excluded.port_min, port_max = excluded.port_max,
          instance_id = excluded.instance_id, admin_url = excluded.admin_url,
          peer_host = excluded.peer_host, peer_port = excluded.peer_port,
          lease_until = excluded.lease_until, heartbeat_at = excluded.heartbeat_at,
          heartbeat_sequence = 0, connections = 0, bandwidth_mbps = 0
        RETURNING max_tunnels, (SELECT instance_id FROM before) IS DISTINCT FROM instance_id AS new_instance)
        SELECT holder, max_tunnels AS "maxTunnels", new_instance AS "newInstance" FROM claim LEFT JOIN registered ON true`,
    );
    if (!registration) throw new Error('an upsert returned no row');
    return registration;
  }

  /** The other servers of this one's public name, where they reach each other; whether alive or not: tunnels come back. */
  peersOf(serverId: string): Promise<Peer[]> {
    return this.database.rows(
      Peer,
      Prisma.sql`
        SELECT p.id AS "serverId", p.peer_host AS host, p.peer_port AS port,
          jsonb_build_object('min', p.port_min, 'max', p.port_max) AS "portRange"
        FROM servers me JOIN servers p ON lower(p.host) = lower(me.host) AND p.id <> me.id
        WHERE me.id = ${serverId} AND me.peer_host IS NOT NULL AND p.peer_host IS NOT NULL
        ORDER BY p.id LIMIT ${PEERS_MAX}`,
    );
  }

  /** Marks servers whose lease has ended and returns their ids. One whose row is locked is having a heartbeat. */
  async loseExpired(): Promise<string[]> {
    const lost = await this.database.rows(
      z.object({ id: z.string() }),
      Prisma.sql`
        UPDATE servers SET state = 'offline', connections = 0, bandwidth_mbps = 0
        WHERE id IN (
          SELECT id FROM servers WHERE state IN ('online', 'draining') AND lease_until <= now() FOR NO KEY UPDATE SKIP LOCKED)
        RETURNING id`,
    );
    return lost.map(({ id }) => id);
  }
}
