import { Inject, Injectable } from '@nestjs/common';
import { z } from 'zod';

import { CONFIG, type Config } from '../platform/config/config.js';
import { Database, isUniqueViolation } from '../platform/database/database.js';
import { Prisma, type Server } from '../platform/database/generated/client.js';
import type { RegisterRequest } from '../protocol/plane-api.js';
import type { CreateServerRequest } from './server.js';

/** A server was registered: the limits that count, and whether this is a new process. */
const Registration = z.object({ maxTunnels: z.int(), newInstance: z.boolean() });

/** bore-servers in the database. All times are the database's clock: backends' clocks may differ. */
@Injectable()
export class ServersRepository {
  constructor(
    private readonly database: Database,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  /** `null` when the id is taken. */
  async create(request: CreateServerRequest): Promise<Server | null> {
    const { maxConcurrentTunnels, maxBandwidthMbps, port, ...rest } = request;
    const maxTunnels = maxConcurrentTunnels ?? this.config.MAX_TUNNELS_PER_SERVER;
    try {
      return await this.database.server.create({
        data: {
          ...rest,
          port: port ?? this.config.BORE_SERVER_PORT,
          maxTunnels,
          maxBandwidthMbps: maxBandwidthMbps ?? maxTunnels * this.config.MAX_BANDWIDTH_PER_TUNNEL,
        },
      });
    } catch (error) {
      if (isUniqueViolation(error)) return null;
      throw error;
    }
  }

  find(id: string): Promise<Server | null> {
    return this.database.server.findUnique({ where: { id } });
  }

  /** Servers by id, beginning behind `after`. */
  list(limit: number, after: string | undefined): Promise<Server[]> {
    return this.database.server.findMany({
      where: after === undefined ? {} : { id: { gt: after } },
      orderBy: { id: 'asc' },
      take: limit,
    });
  }

  /**
   * A bore-server presents itself: creates or updates its row, gives it a lease, and fences the process before it.
   * What the server names replaces what stood there; what it leaves out stays, or is the default.
   */
  async register(request: RegisterRequest): Promise<z.infer<typeof Registration>> {
    const { config } = this;
    // a server cannot carry more tunnels than it has ports
    const ports = request.portRange.max - request.portRange.min + 1;
    const maxTunnels = request.maxTunnels ?? null;
    const initialMaxTunnels = Math.min(maxTunnels ?? config.MAX_TUNNELS_PER_SERVER, ports);
    const bandwidth = request.maxBandwidthMbps ?? null;
    const initialBandwidth = bandwidth ?? initialMaxTunnels * config.MAX_BANDWIDTH_PER_TUNNEL;
    const [registration] = await this.database.rows(
      Registration,
      Prisma.sql`
        WITH before AS (SELECT instance_id FROM servers WHERE id = ${request.serverId})
        INSERT INTO servers AS s (
          id, host, port, location, state, max_tunnels, max_bandwidth_mbps,
          port_min, port_max, instance_id, admin_url, lease_until, heartbeat_at
        ) VALUES (
          ${request.serverId}, ${request.host ?? config.BORE_SERVER_HOST}, ${request.controlPort}, ${request.location ?? 'default'}, 'online',
          ${initialMaxTunnels}::int, ${initialBandwidth}::int,
          ${request.portRange.min}, ${request.portRange.max}, ${request.instanceId}::uuid, ${request.adminUrl},
          now() + make_interval(secs => ${config.SERVER_LEASE_SECONDS}), now()
        )
        ON CONFLICT (id) DO UPDATE SET
          host = coalesce(${request.host ?? null}, s.host),
          port = excluded.port,
          location = coalesce(${request.location ?? null}, s.location),
          state = CASE WHEN s.state = 'disabled' THEN s.state WHEN s.drain_requested THEN 'draining' ELSE 'online' END,
          max_tunnels = least(coalesce(${maxTunnels}::int, s.max_tunnels), ${ports}::int),
          max_bandwidth_mbps = coalesce(${bandwidth}::int, s.max_bandwidth_mbps),
          port_min = excluded.port_min, port_max = excluded.port_max,
          instance_id = excluded.instance_id, admin_url = excluded.admin_url,
          lease_until = excluded.lease_until, heartbeat_at = excluded.heartbeat_at,
          heartbeat_sequence = 0, connections = 0, bandwidth_mbps = 0
        RETURNING max_tunnels AS "maxTunnels", (SELECT instance_id FROM before) IS DISTINCT FROM instance_id AS "newInstance"`,
    );
    if (!registration) throw new Error('an upsert returned no row');
    return registration;
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

  /**
   * Whether an administrator wants a server drained; `null` when there is none of this id. A drain holds for every
   * admission from here on (open_tunnel looks under the row's lock). An undrained server takes tunnels again with its
   * next heartbeat: only that says whether the server itself wants to.
   */
  async setDrainRequested(id: string, drain: boolean): Promise<Server | null> {
    const changed = await this.database.$executeRaw`
      UPDATE servers SET drain_requested = ${drain}, state = CASE WHEN ${drain} AND state = 'online' THEN 'draining' ELSE state END
      WHERE id = ${id}`;
    return changed === 0 ? null : this.find(id);
  }

  /** Servers by state; a lease that has ended counts as offline at once. */
  async countByState(): Promise<{ state: string; count: number }[]> {
    return this.database.rows(
      z.object({ state: z.string(), count: z.int() }),
      Prisma.sql`
        SELECT CASE WHEN state <> 'disabled' AND (lease_until IS NULL OR lease_until <= now()) THEN 'offline' ELSE state::text END AS state,
               count(*)::int AS count
        FROM servers GROUP BY 1`,
    );
  }
}
