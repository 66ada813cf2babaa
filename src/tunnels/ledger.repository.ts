import { Injectable } from '@nestjs/common';
import { z } from 'zod';

import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import { ConnectionEndReason } from '../protocol/reports.js';
import type { ClientSessionView, ListClientSessionsQuery } from './client-session.js';
import type { ConnectionKey, ConnectionView, ListConnectionsQuery } from './connection.js';
import type { BucketRow, Buckets } from './usage.js';

/** bigint of the database; never above 2^53 - 1 (bytes_max in prisma/migrations). */
const Count = z.coerce.number().int();

const ConnectionRow = z.object({
  id: z.guid(),
  visitorAddress: z.string(),
  visitorPort: z.int(),
  startedAt: z.date(),
  endedAt: z.date(),
  setupMs: z.number().nullable(),
  bytesIn: Count,
  bytesOut: Count,
  reason: ConnectionEndReason,
});

const UsageRow = z.object({ bucket: Count, bytesIn: Count, bytesOut: Count, connections: Count });

/**
 * What crossed the tunnels: visitors' connections one by one, and hourly sums, written by apply_report alone; and who carried
 * them, written by the trigger record_client_session.
 */
@Injectable()
export class LedgerRepository {
  constructor(private readonly database: Database) {}

  /** One more than the page holds, newest end first, beginning behind `after`. */
  async connections(
    tunnelId: string,
    { limit, reason, from, to }: ListConnectionsQuery,
    after: ConnectionKey | undefined,
  ): Promise<ConnectionView[]> {
    const conditions = [
      Prisma.sql`tunnel_id = ${tunnelId}::uuid`,
      ...(after ? [Prisma.sql`(ended_at, id) < (${after.endedAt}::timestamptz, ${after.id}::uuid)`] : []),
      ...(reason === undefined ? [] : [Prisma.sql`reason = ${reason}`]),
      ...(from === undefined ? [] : [Prisma.sql`ended_at >= ${from}::timestamptz`]),
      ...(to === undefined ? [] : [Prisma.sql`ended_at < ${to}::timestamptz`]),
    ];
    const rows = await this.database.readRows(
      ConnectionRow,
      Prisma.sql`
        SELECT id, visitor_address AS "visitorAddress", visitor_port AS "visitorPort", started_at AS "startedAt",
          ended_at AS "endedAt", setup_ms AS "setupMs", bytes_in AS "bytesIn", bytes_out AS "bytesOut", reason
        FROM tunnel_connections WHERE ${Prisma.join(conditions, ' AND ')}
        ORDER BY ended_at DESC, id DESC LIMIT ${limit + 1}`,
    );
    return rows.map((row) => ({
      ...row,
      startedAt: row.startedAt.toISOString(),
      endedAt: row.endedAt.toISOString(),
    }));
  }

  /** Client sessions, one more than the page holds, newest first, beginning before an epoch. */
  async sessions(
    tunnelId: string,
    { limit }: ListClientSessionsQuery,
    before: number | undefined,
  ): Promise<ClientSessionView[]> {
    const rows = await this.database.read((reader) =>
      reader.tunnelSession.findMany({
        where: { tunnelId, ...(before !== undefined && { epoch: { lt: before } }) },
        orderBy: { epoch: 'desc' },
        take: limit + 1,
      }),
    );
    return rows.map(({ id, epoch, serverId, clientAddress, connectedAt, disconnectedAt }) => ({
      id,
      epoch,
      serverId,
      clientAddress,
      connectedAt: connectedAt.toISOString(),
      disconnectedAt: disconnectedAt?.toISOString() ?? null,
    }));
  }

  /** Sums of the buckets in which anything was. */
  usage(tunnelId: string, { seconds, first, count }: Buckets): Promise<BucketRow[]> {
    return this.database.readRows(
      UsageRow,
      Prisma.sql`
        SELECT floor(extract(epoch FROM hour) / ${seconds}::int)::int AS bucket, least(sum(bytes_in), bytes_max())::bigint AS "bytesIn",
          least(sum(bytes_out), bytes_max())::bigint AS "bytesOut", least(sum(connections), bytes_max())::bigint AS connections
        FROM tunnel_usage
        WHERE tunnel_id = ${tunnelId}::uuid
          AND hour >= to_timestamp(${first * seconds}::bigint) AND hour < to_timestamp(${(first + count) * seconds}::bigint)
        GROUP BY 1`,
    );
  }

  /** Deletes connections that ended more than `days` ago, at most `limit`; returns how many. */
  forgetConnections(days: number, limit: number): Promise<number> {
    return this.database.$executeRaw`
      DELETE FROM tunnel_connections WHERE id IN (
        SELECT id FROM tunnel_connections WHERE ended_at < now() - make_interval(days => ${days}::int)
        LIMIT ${limit} FOR UPDATE SKIP LOCKED)`;
  }

  /** Deletes client sessions that ended more than `days` ago, at most `limit`; returns how many. */
  forgetSessions(days: number, limit: number): Promise<number> {
    return this.database.$executeRaw`
      DELETE FROM tunnel_sessions WHERE id IN (
        SELECT id FROM tunnel_sessions WHERE disconnected_at < now() - make_interval(days => ${days}::int)
        LIMIT ${limit} FOR UPDATE SKIP LOCKED)`;
  }

  /** Deletes hourly sums older than `days`, at most `limit`; returns how many. */
  forgetUsage(days: number, limit: number): Promise<number> {
    return this.database.$executeRaw`
      DELETE FROM tunnel_usage WHERE (tunnel_id, hour) IN (
        SELECT tunnel_id, hour FROM tunnel_usage WHERE hour < now() - make_interval(days => ${days}::int)
        LIMIT ${limit} FOR UPDATE SKIP LOCKED)`;
  }

  /** Deletes how far reporters had come that have reported nothing for `days`, at most `limit`; returns how many. */
  forgetReporters(days: number, limit: number): Promise<number> {
    return this.database.$executeRaw`
      DELETE FROM usage_reporters WHERE reporter_id IN (
        SELECT reporter_id FROM usage_reporters WHERE updated_at < now() - make_interval(days => ${days}::int)
        LIMIT ${limit} FOR UPDATE SKIP LOCKED)`;
  }
}
