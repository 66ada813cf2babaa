import { Injectable } from '@nestjs/common';
import { z } from 'zod';

import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import { FLEET_MAX, FleetView, ServerLoad } from './fleet.js';

const Row = ServerLoad.omit({ reachable: true }).extend({ heartbeatAt: z.date().nullable() });
const Counts = FleetView.pick({ servers: true, tunnels: true, connections: true, bandwidthMbps: true });

// a lease that has ended counts before the job has written it down
const STATE = Prisma.sql`CASE WHEN state <> 'disabled' AND (lease_until IS NULL OR lease_until <= now()) THEN 'offline' ELSE state::text END`;

/** All bore-servers with their load, read in one go. */
@Injectable()
export class FleetRepository {
  constructor(private readonly database: Database) {}

  /** One more than {@link FLEET_MAX} at most, by id. `score` is what open_tunnel places by. */
  async servers(): Promise<Omit<ServerLoad, 'reachable'>[]> {
    const rows = await this.database.rows(
      Row,
      Prisma.sql`
        SELECT id, location, ${STATE} AS state, drain_requested AS "drainRequested",
          CASE WHEN lease_until > now() THEN extract(epoch FROM lease_until - now())::float END AS "leaseSeconds",
          heartbeat_at AS "heartbeatAt", open_tunnels AS "openTunnels", max_tunnels AS "maxConcurrentTunnels", connections,
          bandwidth_mbps AS "bandwidthMbps", max_bandwidth_mbps AS "maxBandwidthMbps",
          greatest(open_tunnels::float / max_tunnels, bandwidth_mbps / max_bandwidth_mbps) AS score
        FROM servers WHERE deleted_at IS NULL ORDER BY id LIMIT ${FLEET_MAX + 1}`,
    );
    return rows.map((row) => ({ ...row, heartbeatAt: row.heartbeatAt?.toISOString() ?? null }));
  }

  async counts(): Promise<z.infer<typeof Counts>> {
    const count = (of: Prisma.Sql, state: string) => Prisma.sql`count(*) FILTER (WHERE ${of} = ${state})::int`;
    const [row] = await this.database.rows(
      Counts,
      Prisma.sql`
        SELECT s.*, t.tunnels FROM (
            SELECT jsonb_build_object('online', ${count(STATE, 'online')}, 'draining', ${count(STATE, 'draining')},
                'offline', ${count(STATE, 'offline')}, 'disabled', ${count(STATE, 'disabled')}) AS servers,
              coalesce(sum(connections), 0)::int AS connections, coalesce(sum(bandwidth_mbps), 0)::float AS "bandwidthMbps"
            FROM servers WHERE deleted_at IS NULL) s, (
            SELECT jsonb_build_object('pending', ${count(Prisma.sql`state::text`, 'pending')}, 'active', ${count(Prisma.sql`state::text`, 'active')},
                'offline', ${count(Prisma.sql`state::text`, 'offline')}) AS tunnels
            FROM tunnels WHERE state <> 'closed') t`,
    );
    if (!row) throw new Error('an aggregate returned no row');
    return row;
  }
}
