import { Inject, Injectable } from '@nestjs/common';
import { z } from 'zod';

import { auditInsert } from '../audit/audit-log.repository.js';
import { CONFIG, type Config } from '../platform/config/config.js';
import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import { matchesVersion, type SeenVersions } from '../platform/http/etag.js';
import type { CreateServerRequest, UpdateServerRequest } from './server.js';

/** A session of a tunnel that a change has ended, and where to end it on the wire. */
const Fenced = z.object({ id: z.guid(), serverId: z.string(), adminUrl: z.string().nullable() });
export type Fenced = z.infer<typeof Fenced>;

const Updated = z.object({
  outcome: z.enum(['updated', 'changed', 'not_found', 'port_range_taken']),
  fenced: z.array(Fenced),
});
const Deleted = z.object({ outcome: z.enum(['deleted', 'in_use', 'not_found']) });

/** What administrators do to bore-servers: each in one statement, with its entry in the audit log. */
@Injectable()
export class ServerAdministrationRepository {
  constructor(
    private readonly database: Database,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  /**
   * Announces a server; false when the id is taken, unless by this very request (`creation`), as the audit log knows. That of
   * a deleted one is free: its row begins anew.
   */
  async create(request: CreateServerRequest, creation: string): Promise<boolean> {
    const { config } = this;
    const { id, host, location, maxConcurrentTunnels } = request;
    const maxTunnels = maxConcurrentTunnels ?? config.MAX_TUNNELS_PER_SERVER;
    const bandwidth = request.maxBandwidthMbps ?? maxTunnels * config.MAX_BANDWIDTH_PER_TUNNEL;
    const created = await this.database.$executeRaw`
      WITH created AS (
        INSERT INTO servers AS s (id, host, port, location, max_tunnels, max_tunnels_admin, max_bandwidth_mbps)
        VALUES (${id}, ${host}, ${request.port ?? config.BORE_SERVER_PORT}, ${location}, ${maxTunnels}, ${maxConcurrentTunnels ?? null}::int, ${bandwidth})
        ON CONFLICT (id) DO UPDATE SET
          host = excluded.host, port = excluded.port, location = excluded.location, max_tunnels = excluded.max_tunnels,
          max_tunnels_admin = excluded.max_tunnels_admin, max_tunnels_named = NULL, max_bandwidth_mbps = excluded.max_bandwidth_mbps,
          port_min = NULL, port_max = NULL, deleted_at = NULL, created_at = now(), version = s.version + 1
        WHERE s.deleted_at IS NOT NULL
        RETURNING id)
      ${auditInsert({ action: 'server.created', target: { type: 'server', id }, details: { host, location, creation } }, Prisma.sql`created`)}`;
    if (created > 0) return true;
    const before = await this.database.auditEntry.count({
      where: {
        action: 'server.created',
        targetType: 'server',
        targetId: id,
        details: { path: ['creation'], equals: creation },
      },
    });
    return before > 0;
  }

  /**
   * Changes a server that has one of `versions`. Disabling it takes its tunnels offline: their epochs grow,
   * so that no heartbeat brings their sessions back. They keep their ports as tunnels do whose client is gone. One that shares its
   * public name takes no other name whose servers have its ports.
   */
  async update(id: string, versions: SeenVersions, change: UpdateServerRequest): Promise<z.infer<typeof Updated>> {
    const { config } = this;
    const { host, location, maxBandwidthMbps, maxConcurrentTunnels: limit, disabled } = change;
    const assignments = [
      Prisma.sql`version = s.version + 1`,
      ...(host === undefined ? [] : [Prisma.sql`host = ${host}`]),
      ...(location === undefined ? [] : [Prisma.sql`location = ${location}`]),
      ...(maxBandwidthMbps === undefined ? [] : [Prisma.sql`max_bandwidth_mbps = ${maxBandwidthMbps}::int`]),
      ...(limit === undefined
        ? []
        : [
            Prisma.sql`max_tunnels_admin = ${limit}::int, max_tunnels = least(
              coalesce(least(${limit}::int, s.max_tunnels_named), ${config.MAX_TUNNELS_PER_SERVER}::int), s.port_max - s.port_min + 1)`,
          ]),
      ...(disabled === true ? [Prisma.sql`state = 'disabled'`] : []),
      // what it is besides is in its next heartbeat
      ...(disabled === false
        ? [Prisma.sql`state = CASE WHEN s.state = 'disabled' THEN 'offline' ELSE s.state END`]
        : []),
    ];
    const audit = auditInsert(
      { action: 'server.updated', target: { type: 'server', id }, details: Prisma.sql`${JSON.stringify(change)}` },
      Prisma.sql`changed`,
    );
    const [updated] = await this.database.rows(
      Updated,
      Prisma.sql`
        WITH known AS MATERIALIZED (SELECT id FROM servers WHERE id = ${id} AND deleted_at IS NULL),
          claim AS MATERIALIZED (SELECT (
            SELECT claim_port_range(s.id, ${host ?? null}, s.host, s.port_min, s.port_max) FROM servers s
            WHERE s.id = ${id} AND ${host !== undefined} AND s.peer_host IS NOT NULL AND ${matchesVersion(versions, Prisma.sql`s.version`)}) AS holder),
          changed AS (
            UPDATE servers s SET ${Prisma.join(assignments)} FROM claim
            WHERE s.id = ${id} AND s.deleted_at IS NULL AND claim.holder IS NULL AND ${matchesVersion(versions, Prisma.sql`s.version`)}
            RETURNING s.id, s.admin_url),
          fenced AS (
            UPDATE tunnels t SET state = 'offline', epoch = t.epoch + 1, idle_deadline = now() + make_interval(secs => ${config.OFFLINE_TUNNEL_SECONDS}::int)
            FROM changed WHERE ${disabled === true} AND t.server_id = changed.id AND t.state = 'active'
            RETURNING t.id, t.server_id AS "serverId", changed.admin_url AS "adminUrl"),
          audited AS (${audit})
        SELECT CASE WHEN EXISTS (SELECT FROM changed) THEN 'updated' WHEN (SELECT holder FROM claim) IS NOT NULL THEN 'port_range_taken'
            WHEN EXISTS (SELECT FROM known) THEN 'changed' ELSE 'not_found' END AS outcome,
          (SELECT coalesce(jsonb_agg(to_jsonb(fenced)), '[]') FROM fenced) AS fenced`,
    );
    if (!updated) throw new Error('an update returned no row');
    return updated;
  }

  /** Takes a server out of the register, when it neither runs nor has open tunnels: no tunnel can come to it meanwhile. */
  async delete(id: string): Promise<z.infer<typeof Deleted>['outcome']> {
    const audit = auditInsert({ action: 'server.deleted', target: { type: 'server', id } }, Prisma.sql`deleted`);
    const [row] = await this.database.rows(
      Deleted,
      Prisma.sql`
        WITH known AS MATERIALIZED (SELECT id FROM servers WHERE id = ${id} AND deleted_at IS NULL),
          deleted AS (
            UPDATE servers SET deleted_at = now(), state = 'offline', drain_requested = false, instance_id = NULL, admin_url = NULL,
              lease_until = NULL, heartbeat_at = NULL, connections = 0, bandwidth_mbps = 0, version = version + 1
            WHERE id = ${id} AND deleted_at IS NULL AND open_tunnels = 0 AND (lease_until IS NULL OR lease_until <= now())
            RETURNING id),
          audited AS (${audit})
        SELECT CASE WHEN EXISTS (SELECT FROM deleted) THEN 'deleted' WHEN EXISTS (SELECT FROM known) THEN 'in_use' ELSE 'not_found' END AS outcome`,
    );
    if (!row) throw new Error('a deletion returned no row');
    return row.outcome;
  }

  /**
   * Whether an administrator wants a server drained; false when there is none of this id. A drain holds for every
   * admission from here on (open_tunnel looks under the row's lock). An undrained server takes tunnels again with its
   * next heartbeat: only that says whether the server itself wants to.
   */
  async setDrainRequested(id: string, drain: boolean): Promise<boolean> {
    const action = drain ? 'server.drained' : 'server.undrained';
    const changed = await this.database.$executeRaw`
      WITH changed AS (
        UPDATE servers SET drain_requested = ${drain}, state = CASE WHEN ${drain} AND state = 'online' THEN 'draining' ELSE state END,
          version = version + 1
        WHERE id = ${id} AND deleted_at IS NULL RETURNING id)
      ${auditInsert({ action, target: { type: 'server', id } }, Prisma.sql`changed`)}`;
    return changed > 0;
  }
}
