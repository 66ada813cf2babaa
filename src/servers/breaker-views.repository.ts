import { Injectable } from '@nestjs/common';
import { z } from 'zod';

import { auditInsert } from '../audit/audit-log.repository.js';
import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import { type BreakerState, BreakerView } from './breaker.js';

/** A backend that has said nothing for so long is gone: ten exchanges, and longer than a statement may take to arrive. */
export const BREAKER_STALE_SECONDS = 15;
/** More than any fleet has: backends × servers. */
const VIEWS_MAX = 10_000;

const Row = BreakerView.extend({ updatedAt: z.date() });

const Answer = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('reset'), serverId: z.string() }),
  z.object({ kind: z.literal('deleted'), serverId: z.string() }),
  z.object({ kind: z.literal('unreached'), serverId: z.string(), adminUrl: z.string().nullable() }),
]);
/** What a backend hears of one of its breakers: it must close it; its server is gone; or where to try a server that it did not reach. */
type BreakerAnswer = z.infer<typeof Answer>;

/** What every backend's circuit breakers are like, shared through the database. */
@Injectable()
export class BreakerViewsRepository {
  constructor(private readonly database: Database) {}

  /**
   * Says what a backend's breakers are like (prisma/migrations). A server that is lost or disabled is nowhere to be tried: its
   * address may be somebody else's by now, and the internal key would go there.
   */
  exchange(backendId: string, breakers: readonly BreakerState[]): Promise<BreakerAnswer[]> {
    const views = JSON.stringify(breakers);
    return this.database.rows(
      Answer,
      Prisma.sql`
        SELECT 'reset' AS kind, exchange_breakers(${backendId}::uuid, ${views}::jsonb, ${BREAKER_STALE_SECONDS}::int) AS "serverId",
          NULL AS "adminUrl"
        UNION ALL
        SELECT CASE WHEN s.id IS NULL THEN 'deleted' ELSE 'unreached' END, v ->> 'serverId',
          CASE WHEN s.state IN ('online', 'draining') AND s.lease_until > now() THEN s.admin_url END
        FROM jsonb_array_elements(${views}::jsonb) v
        LEFT JOIN servers s ON s.id = v ->> 'serverId' AND s.deleted_at IS NULL
        WHERE s.id IS NULL OR v ->> 'state' <> 'closed'`,
    );
  }

  /** Views of the backends that run, by server. */
  async list(): Promise<BreakerView[]> {
    const rows = await this.database.rows(
      Row,
      Prisma.sql`
        SELECT v.server_id AS "serverId", v.backend_id AS "backendId", v.state, v.stats, v.updated_at AS "updatedAt"
        FROM breaker_views v JOIN backends b ON b.id = v.backend_id
        WHERE b.seen_at > now() - make_interval(secs => ${BREAKER_STALE_SECONDS}::int)
        ORDER BY v.server_id, v.backend_id LIMIT ${VIEWS_MAX}`,
    );
    return rows.map((row) => ({ ...row, updatedAt: row.updatedAt.toISOString() }));
  }

  /** Ids of the backends that run. */
  async backends(): Promise<string[]> {
    const rows = await this.database.rows(
      z.object({ id: z.guid() }),
      Prisma.sql`SELECT id FROM backends WHERE seen_at > now() - make_interval(secs => ${BREAKER_STALE_SECONDS}::int) ORDER BY started_at, id`,
    );
    return rows.map(({ id }) => id);
  }

  /** Asks every backend to close its breaker of a server, or all of them; returns how many breakers that are. */
  async requestReset(serverId: string | undefined): Promise<number> {
    const audit = auditInsert({
      action: 'circuit_breakers.reset',
      ...(serverId !== undefined && { target: { type: 'server', id: serverId } }),
      details: Prisma.sql`jsonb_build_object('breakers', (SELECT count(*) FROM asked))`,
    });
    const [row] = await this.database.rows(
      z.object({ count: z.int() }),
      Prisma.sql`
        WITH locked AS MATERIALIZED (
            SELECT backend_id, server_id FROM breaker_views WHERE server_id = coalesce(${serverId ?? null}::text, server_id)
            ORDER BY backend_id, server_id FOR UPDATE),
          asked AS (
            UPDATE breaker_views v SET reset_requested = true FROM locked l
            WHERE v.backend_id = l.backend_id AND v.server_id = l.server_id RETURNING v.server_id),
          audited AS (${audit})
        SELECT count(*)::int AS count FROM asked`,
    );
    return row?.count ?? 0;
  }
}
