import { Inject, Injectable } from '@nestjs/common';
import { z } from 'zod';

import { auditInsert } from '../audit/audit-log.repository.js';
import { CONFIG, type Config } from '../platform/config/config.js';
import { Database, isUniqueViolation } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import { matchesVersion, type SeenVersions } from '../platform/http/etag.js';
import type { OpenTunnelRequest, PlacedTunnel, UpdateTunnelRequest } from './tunnel.js';
import { assignmentsOf } from './tunnel-changes.js';
import { type ListTunnelsQuery, placeOf, selectionOf } from './tunnel-list.js';

const WITH_SERVER = { server: { select: { host: true, port: true, location: true, adminUrl: true } } } as const;

/** What `open_tunnel` decided (prisma/migrations). */
const Admission = z.object({
  outcome: z.enum([
    'opened',
    'exists',
    'user_suspended',
    'quota_exceeded',
    'name_taken',
    'port_out_of_range',
    'port_taken',
    'no_capacity',
  ]),
});
export type AdmissionOutcome = z.infer<typeof Admission>['outcome'];

/** A tunnel that has just been closed, and where it must be ended on the wire. */
const ClosedTunnel = z.object({
  id: z.guid(),
  reason: z.string(),
  serverId: z.string(),
  adminUrl: z.string().nullable(),
});
export type ClosedTunnel = z.infer<typeof ClosedTunnel>;

/** What a tunnel is opened with. */
export interface NewTunnel extends OpenTunnelRequest {
  readonly id: string;
  readonly userId: string;
  readonly sealedKey: Buffer<ArrayBuffer>;
}

/** Whose limits apply to an admission. */
export interface AdmissionLimits {
  readonly userTunnels: number;
  /** May use the reserved share of the capacity. */
  readonly useReserve: boolean;
  /** Servers that cannot be reached now. */
  readonly avoidServers: readonly string[];
}

/** Tunnels in the database. */
@Injectable()
export class TunnelsRepository {
  constructor(
    private readonly database: Database,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  /** Checks quota and capacity and takes a slot and a port, in one round trip (G1). */
  async open(tunnel: NewTunnel, limits: AdmissionLimits): Promise<AdmissionOutcome> {
    const { config } = this;
    const reserved = limits.useReserve ? 0 : config.RESERVED_CAPACITY_PERCENT;
    const statement = Prisma.sql`
        WITH admission AS MATERIALIZED (SELECT * FROM open_tunnel(
          ${tunnel.id}::uuid, ${tunnel.userId}::uuid, ${limits.userTunnels}::int, ${config.TOTAL_SYSTEM_CAPACITY ?? null}::int, ${reserved}::int,
          ${tunnel.port ?? null}::int, ${tunnel.location ?? null}::text, ${[...limits.avoidServers]}::text[], ${tunnel.name ?? null}::text,
          ${tunnel.localPort ?? null}::int, ${tunnel.sealedKey}::bytea, ${tunnel.maxConnections ?? null}::int,
          ${config.PENDING_TUNNEL_SECONDS}::int, ${tunnel.ttlSeconds ?? null}::int, ${tunnel.bandwidthMbps ?? null}::int,
          ${tunnel.allowCidrs ?? []}::text[], ${tunnel.denyCidrs ?? []}::text[], ${tunnel.proxyProtocol ?? null}::proxy_protocol,
          ${JSON.stringify(tunnel.labels ?? {})}::jsonb, ${tunnel.relocate ?? false}::boolean)),
        audited AS (${auditInsert(
          {
            action: 'tunnel.opened',
            target: { type: 'tunnel', id: tunnel.id },
            userId: tunnel.userId,
            details: Prisma.sql`jsonb_build_object('serverId', server_id, 'port', port)`,
          },
          Prisma.sql`admission WHERE outcome = 'opened'`,
        )})
        SELECT outcome FROM admission`;
    const [admission] = await this.database.rows(Admission, statement).catch((error: unknown) => {
      // ports are given away under the lock that open_tunnel holds; another tunnel of theirs may get this name beside it
      if (isUniqueViolation(error)) return [{ outcome: 'name_taken' as const }];
      throw error;
    });
    if (!admission) throw new Error('open_tunnel returned no row');
    return admission.outcome;
  }

  find(id: string, userId: string): Promise<PlacedTunnel | null> {
    return this.database.tunnel.findFirst({ where: { id, userId }, include: WITH_SERVER });
  }

  /**
   * One more than the page holds.
   * @throws PlatformError VALIDATION_FAILED when the cursor is of another list
   */
  async list(userId: string, query: ListTunnelsQuery): Promise<PlacedTunnel[]> {
    const { where, orderBy } = selectionOf(query, placeOf(query));
    return this.database.read((reader) =>
      reader.tunnel.findMany({
        where: { userId, ...where },
        orderBy,
        take: query.limit + 1,
        include: WITH_SERVER,
      }),
    );
  }

  /**
   * Changes a user's tunnel, in one statement. Its settings get the next version when one of them has changed.
   * False when it is not theirs, not there, at its end, or of none of the versions.
   */
  async update(
    id: string,
    userId: string,
    change: UpdateTunnelRequest,
    versions: SeenVersions,
  ): Promise<boolean | 'name_taken'> {
    try {
      const changed = await this.database.rows(
        z.object({ id: z.guid() }),
        Prisma.sql`
          WITH changed AS (
            UPDATE tunnels SET ${assignmentsOf(change)}
            WHERE id = ${id}::uuid AND user_id = ${userId}::uuid AND state <> 'closed'
              AND (expires_at IS NULL OR expires_at > now()) AND ${matchesVersion(versions)}
            RETURNING id, user_id),
          audited AS (${auditInsert(
            {
              action: 'tunnel.updated',
              target: { type: 'tunnel', id: Prisma.sql`id` },
              userId: Prisma.sql`user_id`,
              details: { fields: Object.keys(change).join() },
            },
            Prisma.sql`changed`,
          )})
          SELECT id FROM changed`,
      );
      return changed.length > 0;
    } catch (error) {
      if (isUniqueViolation(error)) return 'name_taken';
      throw error;
    }
  }

  /** Closes a user's tunnel; `null` when it is not theirs, not there, closed before, or of none of the versions. */
  async close(id: string, userId: string, reason: string, versions: SeenVersions): Promise<ClosedTunnel | null> {
    const [closed] = await this.closeWhere(
      reason,
      Prisma.sql`t.id = ${id}::uuid AND t.user_id = ${userId}::uuid AND ${matchesVersion(versions, Prisma.sql`t.version`)}`,
      1,
    );
    return closed ?? null;
  }

  /** Closes tunnels whose time to live has ended, at most `limit`. */
  closeExpired(limit: number): Promise<ClosedTunnel[]> {
    return this.closeWhere('expired', Prisma.sql`t.expires_at <= now()`, limit);
  }

  /** Closes tunnels that no client came for in time, at most `limit`. */
  closeAbandoned(limit: number): Promise<ClosedTunnel[]> {
    return this.closeWhere('abandoned', Prisma.sql`t.idle_deadline <= now()`, limit);
  }

  /**
   * Active tunnels of servers that are lost or disabled go offline; their ports are kept for the servers' return. The
   * servers are locked first: one that comes back meanwhile has a heartbeat, and its tunnels stay. A server or tunnel that
   * somebody is changing now is left to the next run: waiting for many rows, in any order, could wait in a circle.
   * Of a disabled server the sessions are fenced off: a client came in just when it was disabled, or by a grant.
   */
  async setOfflineOnLostServers(): Promise<number> {
    return this.database.$executeRaw`
      WITH lost AS MATERIALIZED (
          SELECT id, state FROM servers
          WHERE open_tunnels > 0 AND (state = 'disabled' OR lease_until IS NULL OR lease_until <= now())
          FOR NO KEY UPDATE SKIP LOCKED),
        carried AS MATERIALIZED (
          SELECT id FROM tunnels WHERE state = 'active' AND server_id IN (SELECT id FROM lost) FOR NO KEY UPDATE SKIP LOCKED)
      UPDATE tunnels t SET state = 'offline', idle_deadline = now() + make_interval(secs => ${this.config.OFFLINE_TUNNEL_SECONDS}),
        epoch = t.epoch + (lost.state = 'disabled')::int
      FROM carried, lost WHERE t.id = carried.id AND lost.id = t.server_id`;
  }

  private closeWhere(reason: string, condition: Prisma.Sql, limit: number): Promise<ClosedTunnel[]> {
    return this.database.rowsUnderCapacityLock(
      ClosedTunnel,
      // servers are locked before their tunnels, as heartbeats do, so that neither waits for the other in a circle; the
      // condition is asked again when the tunnel is locked: a client may have come, or the owner given it more time
      Prisma.sql`
        WITH due AS MATERIALIZED (SELECT t.id, t.server_id FROM tunnels t WHERE t.state <> 'closed' AND ${condition} LIMIT ${limit}),
          locked AS MATERIALIZED (
            SELECT id, admin_url FROM servers WHERE id IN (SELECT server_id FROM due) ORDER BY id FOR NO KEY UPDATE),
          closed AS (
            UPDATE tunnels t SET state = 'closed', close_reason = ${reason}, closed_at = now(), idle_deadline = NULL
            FROM due JOIN locked s ON s.id = due.server_id
            WHERE t.id = due.id AND t.state <> 'closed' AND ${condition}
            RETURNING t.id, t.user_id, t.close_reason, t.server_id, s.admin_url),
          audited AS (${auditInsert(
            {
              action: 'tunnel.closed',
              target: { type: 'tunnel', id: Prisma.sql`id` },
              userId: Prisma.sql`user_id`,
              details: { reason },
            },
            Prisma.sql`closed`,
          )})
        SELECT id, close_reason AS reason, server_id AS "serverId", admin_url AS "adminUrl" FROM closed`,
    );
  }
}
