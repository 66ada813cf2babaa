import { Injectable } from '@nestjs/common';
import { z } from 'zod';

import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import { AuditEntryView, type ListAuditQuery } from './audit-entry.js';

const Row = AuditEntryView.extend({ at: z.date() });

/** The audit log, to be read. */
@Injectable()
export class AuditEntriesRepository {
  constructor(private readonly database: Database) {}

  /** One more than the page holds, newest first, beginning behind `before`. */
  async list(query: ListAuditQuery, before: string | undefined): Promise<AuditEntryView[]> {
    const { action, actorId, userId, targetType, targetId, from, to, limit } = query;
    const conditions = [
      ...(before === undefined ? [] : [Prisma.sql`a.id < ${before}::bigint`]),
      ...(action === undefined ? [] : [Prisma.sql`a.action = ${action}`]),
      ...(actorId === undefined ? [] : [Prisma.sql`a.actor_id = ${actorId}::uuid`]),
      ...(userId === undefined ? [] : [Prisma.sql`a.user_id = ${userId}::uuid`]),
      ...(targetType === undefined ? [] : [Prisma.sql`a.target_type = ${targetType}`]),
      ...(targetId === undefined ? [] : [Prisma.sql`a.target_id = ${targetId}`]),
      ...(from === undefined ? [] : [Prisma.sql`a.at >= ${from}::timestamptz`]),
      ...(to === undefined ? [] : [Prisma.sql`a.at < ${to}::timestamptz`]),
    ];
    const where = conditions.length === 0 ? Prisma.empty : Prisma.sql`WHERE ${Prisma.join(conditions, ' AND ')}`;
    const rows = await this.database.readRows(
      Row,
      Prisma.sql`
        SELECT a.id::text AS id, a.at, a.action, a.actor_id AS "actorId", u.email AS "actorEmail", a.api_key_id AS "apiKeyId",
          a.target_type AS "targetType", a.target_id AS "targetId", a.user_id AS "userId", a.client_address AS "clientAddress",
          a.user_agent AS "userAgent", a.request_id AS "requestId", a.details
        FROM audit_log a LEFT JOIN users u ON u.id = a.actor_id
        ${where} ORDER BY a.id DESC LIMIT ${limit + 1}`,
    );
    return rows.map((row) => ({ ...row, at: row.at.toISOString() }));
  }
}
