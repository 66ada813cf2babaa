import { Injectable } from '@nestjs/common';

import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import { EvidenceAction, EvidenceConnection, type EvidenceQuery, EvidenceSession, EvidenceTunnel } from './evidence.js';

/** Who had a public port, from where they carried it, and who visited it. */
@Injectable()
export class EvidenceRepository {
  constructor(private readonly database: Database) {}

  /** Tunnels that had the port in the window, the oldest first; where each was before it moved is in the audit log. */
  tunnels({ serverId, port, from, to }: EvidenceQuery, limit: number): Promise<EvidenceTunnel[]> {
    return this.database.rows(
      EvidenceTunnel,
      Prisma.sql`
        WITH moves AS MATERIALIZED (
          SELECT target_id::uuid AS tunnel_id, details ->> 'fromServerId' AS server_id, (details ->> 'fromPort')::int AS port,
            lag(at) OVER (PARTITION BY target_id ORDER BY id) AS since, at AS until
          FROM audit_log WHERE action = 'tunnel.relocated'),
        had AS (
          SELECT t.id FROM tunnels t
          WHERE t.server_id = ${serverId} AND t.port = ${port}::int AND (t.closed_at IS NULL OR t.closed_at >= ${from}::timestamptz)
            AND coalesce((SELECT max(m.until) FROM moves m WHERE m.tunnel_id = t.id), t.created_at) < ${to}::timestamptz
          UNION
          SELECT t.id FROM moves m JOIN tunnels t ON t.id = m.tunnel_id
          WHERE m.server_id = ${serverId} AND m.port = ${port}::int AND m.until >= ${from}::timestamptz
            AND coalesce(m.since, t.created_at) < ${to}::timestamptz)
        SELECT t.id AS "tunnelId", t.user_id AS "userId", u.email, t.name, t.created_at AS "createdAt", t.closed_at AS "closedAt",
          t.close_reason AS "closeReason", t.client_address AS "clientAddress", t.connected_at AS "connectedAt"
        FROM had JOIN tunnels t ON t.id = had.id JOIN users u ON u.id = t.user_id
        ORDER BY t.created_at, t.id LIMIT ${limit}`,
    );
  }

  /** What the audit log says of tunnels, the oldest first. */
  actions(tunnelIds: readonly string[], limit: number): Promise<EvidenceAction[]> {
    return this.database.rows(
      EvidenceAction,
      Prisma.sql`
        SELECT target_id AS "tunnelId", at, action, actor_id AS "actorId", client_address AS "clientAddress"
        FROM audit_log WHERE target_type = 'tunnel' AND target_id = ANY (${[...tunnelIds]}::text[]) ORDER BY id LIMIT ${limit}`,
    );
  }

  /** Clients that carried a tunnel in the window, by their epoch, beginning behind `after`. */
  sessions(
    tunnelId: string,
    { from, to }: EvidenceQuery,
    after: EvidenceSession | undefined,
    limit: number,
  ): Promise<EvidenceSession[]> {
    const behind = after ? Prisma.sql`AND (epoch, id) > (${after.epoch}::int, ${after.id}::uuid)` : Prisma.empty;
    return this.database.rows(
      EvidenceSession,
      Prisma.sql`
        SELECT id, tunnel_id AS "tunnelId", server_id AS "serverId", epoch, client_address AS "clientAddress", connected_at AS "connectedAt",
          disconnected_at AS "disconnectedAt"
        FROM tunnel_sessions
        WHERE tunnel_id = ${tunnelId}::uuid AND connected_at < ${to}::timestamptz
          AND (disconnected_at IS NULL OR disconnected_at >= ${from}::timestamptz) ${behind}
        ORDER BY epoch, id LIMIT ${limit}`,
    );
  }

  /** Connections to a tunnel that were open in the window, by their end, beginning behind `after`. */
  connections(
    tunnelId: string,
    { from, to }: EvidenceQuery,
    after: EvidenceConnection | undefined,
    limit: number,
  ): Promise<EvidenceConnection[]> {
    const behind = after
      ? Prisma.sql`AND (ended_at, id) > (${after.endedAt}::timestamptz, ${after.id}::uuid)`
      : Prisma.empty;
    return this.database.rows(
      EvidenceConnection,
      Prisma.sql`
        SELECT id, tunnel_id AS "tunnelId", visitor_address AS "visitorAddress", visitor_port AS "visitorPort", started_at AS "startedAt",
          ended_at AS "endedAt", bytes_in AS "bytesIn", bytes_out AS "bytesOut", reason
        FROM tunnel_connections
        WHERE tunnel_id = ${tunnelId}::uuid AND started_at < ${to}::timestamptz AND ended_at >= ${from}::timestamptz ${behind}
        ORDER BY ended_at, id LIMIT ${limit}`,
    );
  }
}
