import { Inject, Injectable } from '@nestjs/common';
import { z } from 'zod';

import { CONFIG, type Config } from '../platform/config/config.js';
import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import type { ListTunnelsQuery, OpenTunnelRequest, PlacedTunnel } from './tunnel.js';

const WITH_SERVER = { server: { select: { host: true, port: true, location: true } } } as const;

/** What `open_tunnel` decided (prisma/migrations). */
const Admission = z.object({
  outcome: z.enum([
    'opened',
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
    const [admission] = await this.database.rows(
      Admission,
      Prisma.sql`
        SELECT outcome FROM open_tunnel(
          ${tunnel.id}::uuid, ${tunnel.userId}::uuid, ${limits.userTunnels}::int, ${config.TOTAL_SYSTEM_CAPACITY ?? null}::int, ${reserved}::int,
          ${tunnel.port ?? null}::int, ${tunnel.location ?? null}::text, ${[...limits.avoidServers]}::text[], ${tunnel.name ?? null}::text,
          ${tunnel.localPort ?? null}::int, ${tunnel.sealedKey}::bytea, ${tunnel.maxConnections ?? null}::int,
          ${config.PENDING_TUNNEL_SECONDS}::int, ${tunnel.ttlSeconds ?? null}::int)`,
    );
    if (!admission) throw new Error('open_tunnel returned no row');
    return admission.outcome;
  }

  find(id: string, userId: string): Promise<PlacedTunnel | null> {
    return this.database.tunnel.findFirst({ where: { id, userId }, include: WITH_SERVER });
  }

  /** Newest first (ids are UUIDv7), beginning before `before`. */
  list(userId: string, { limit, state }: ListTunnelsQuery, before: string | undefined): Promise<PlacedTunnel[]> {
    return this.database.tunnel.findMany({
      where: {
        userId,
        ...(before !== undefined && { id: { lt: before } }),
        ...(state === 'open' && { state: { not: 'closed' } }),
        ...(state === 'closed' && { state: 'closed' }),
      },
      orderBy: { id: 'desc' },
      take: limit + 1,
      include: WITH_SERVER,
    });
  }

  /** Closes a user's tunnel; `null` when it is not theirs, not there, or closed before. */
  async close(id: string, userId: string, reason: string): Promise<ClosedTunnel | null> {
    const [closed] = await this.closeWhere(reason, Prisma.sql`t.id = ${id}::uuid AND t.user_id = ${userId}::uuid`);
    return closed ?? null;
  }

  /** Closes tunnels whose time to live has ended, at most `limit`. */
  closeExpired(limit: number): Promise<ClosedTunnel[]> {
    return this.closeWhere('expired', this.due(Prisma.sql`expires_at <= now()`, limit));
  }

  /** Closes tunnels that no client came for in time, at most `limit`. */
  closeAbandoned(limit: number): Promise<ClosedTunnel[]> {
    return this.closeWhere('abandoned', this.due(Prisma.sql`idle_deadline <= now()`, limit));
  }

  /** Active tunnels of servers that are lost go offline; their ports are kept for the servers' return. */
  async setOfflineOnLostServers(): Promise<number> {
    return this.database.$executeRaw`
      UPDATE tunnels t SET state = 'offline', idle_deadline = now() + make_interval(secs => ${this.config.OFFLINE_TUNNEL_SECONDS})
      FROM servers s
      WHERE s.id = t.server_id AND t.state = 'active' AND s.state <> 'disabled' AND (s.lease_until IS NULL OR s.lease_until <= now())`;
  }

  async countByState(): Promise<{ state: string; count: number }[]> {
    return this.database.rows(
      z.object({ state: z.string(), count: z.int() }),
      // closed tunnels are history: counting them would cost more with every day
      Prisma.sql`SELECT state::text, count(*)::int AS count FROM tunnels WHERE state <> 'closed' GROUP BY state`,
    );
  }

  private due(condition: Prisma.Sql, limit: number): Prisma.Sql {
    return Prisma.sql`t.id IN (SELECT id FROM tunnels WHERE state <> 'closed' AND ${condition} LIMIT ${limit})`;
  }

  private closeWhere(reason: string, condition: Prisma.Sql): Promise<ClosedTunnel[]> {
    return this.database.rowsUnderCapacityLock(
      ClosedTunnel,
      Prisma.sql`
        UPDATE tunnels t SET state = 'closed', close_reason = ${reason}, closed_at = now(), idle_deadline = NULL
        FROM servers s
        WHERE s.id = t.server_id AND t.state <> 'closed' AND ${condition}
        RETURNING t.id, t.close_reason AS reason, t.server_id AS "serverId", s.admin_url AS "adminUrl"`,
    );
  }
}
