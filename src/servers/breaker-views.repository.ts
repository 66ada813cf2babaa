import { Injectable } from '@nestjs/common';
import { z } from 'zod';

import { auditInsert } from '../audit/audit-log.repository.js';
import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import { type BreakerState, BreakerView } from './breaker.js';

/** A backend that has said nothing for so long is gone: ten exchanges, and longer than a statement may take to arrive. */
const STALE_SECONDS = 15;
/** More than any fleet has: backends × servers. */
const VIEWS_MAX = 10_000;

const Row = BreakerView.extend({ updatedAt: z.date() });

/** What every backend's circuit breakers are like, shared through the database. */
@Injectable()
export class BreakerViewsRepository {
  constructor(private readonly database: Database) {}

  /**
   * Says what a backend's breakers are like (prisma/migrations); returns the servers whose breaker it must close, and
   * those among them all that are no longer in the register.
   */
  async exchange(
    backendId: string,
    breakers: readonly BreakerState[],
  ): Promise<{ reset: string[]; deleted: string[] }> {
    const views = JSON.stringify(breakers);
    const rows = await this.database.rows(
      z.object({ serverId: z.string(), isDeleted: z.boolean() }),
      Prisma.sql`
        SELECT exchange_breakers(${backendId}::uuid, ${views}::jsonb, ${STALE_SECONDS}::int) AS "serverId", false AS "isDeleted"
        UNION ALL
        SELECT v ->> 'serverId', true FROM jsonb_array_elements(${views}::jsonb) v
        WHERE NOT EXISTS (SELECT FROM servers s WHERE s.id = v ->> 'serverId' AND s.deleted_at IS NULL)`,
    );
    const ids = (wanted: boolean) => rows.filter((row) => row.isDeleted === wanted).map((row) => row.serverId);
    return { reset: ids(false), deleted: ids(true) };
  }

  /** Views of the backends that run, by server. */
  async list(): Promise<BreakerView[]> {
    const rows = await this.database.rows(
      Row,
      Prisma.sql`
        SELECT v.server_id AS "serverId", v.backend_id AS "backendId", v.state, v.stats, v.updated_at AS "updatedAt"
        FROM breaker_views v JOIN backends b ON b.id = v.backend_id
        WHERE b.seen_at > now() - make_interval(secs => ${STALE_SECONDS}::int)
        ORDER BY v.server_id, v.backend_id LIMIT ${VIEWS_MAX}`,
    );
    return rows.map((row) => ({ ...row, updatedAt: row.updatedAt.toISOString() }));
  }

  /** Ids of the backends that run. */
  async backends(): Promise<string[]> {
    const rows = await this.database.rows(
      z.object({ id: z.guid() }),
      Prisma.sql`SELECT id FROM backends WHERE seen_at > now() - make_interval(secs => ${STALE_SECONDS}::int) ORDER BY started_at, id`,
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
