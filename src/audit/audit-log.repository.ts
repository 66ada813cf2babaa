import { Injectable } from '@nestjs/common';

import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import { addressOf } from '../platform/http/request-address.js';
import { currentRequest } from '../platform/http/request-context.js';
import type { AuditAction } from './audit-action.js';

/** More of a header than anybody reads; senders choose its length. */
export const USER_AGENT_CHARS_MAX = 200;

/** What happened. Who did it and from where is taken from the request that is being answered. */
export interface AuditEvent {
  readonly action: AuditAction;
  /** What it was done to. An SQL expression where the statement itself knows it. */
  readonly target?: {
    readonly type: 'user' | 'session' | 'api_key' | 'server' | 'tunnel';
    readonly id: string | Prisma.Sql;
  };
  /** Whose account it is about; left out: the actor's. */
  readonly userId?: string | Prisma.Sql;
  /** The actor, where the request has none yet: who has just logged in. */
  readonly actorId?: string | Prisma.Sql;
  /** Short facts: never a secret, never text without a bound. An SQL expression (jsonb) where the statement itself knows them. */
  readonly details?: Readonly<Record<string, string | number | boolean | null>> | Prisma.Sql;
}

/**
 * The statement that records an event, to stand in the transaction of the change, or behind it in one statement:
 *
 *     WITH changed AS (UPDATE … RETURNING id), audited AS (${auditInsert(event, Prisma.sql`changed`)}) SELECT id FROM changed
 *
 * @param from rows, one entry for each: no row, no entry. Left out: one entry.
 */
export function auditInsert(event: AuditEvent, from?: Prisma.Sql): Prisma.Sql {
  const request = currentRequest();
  const caller = request?.caller;
  const actor = event.actorId ?? caller?.userId ?? null;
  const details = event.details ?? {};
  const source = from ? Prisma.sql`FROM ${from}` : Prisma.empty;
  return Prisma.sql`
    INSERT INTO audit_log (action, actor_id, api_key_id, target_type, target_id, user_id, client_address, user_agent, request_id, details)
    SELECT ${event.action}, ${actor}::uuid, ${caller?.apiKeyId ?? null}::text, ${event.target?.type ?? null}::text,
      ${event.target?.id ?? null}::text, ${event.userId ?? actor}::uuid, ${addressOf(request?.ip)}::text,
      ${request?.headers['user-agent']?.slice(0, USER_AGENT_CHARS_MAX) ?? null}::text, ${request?.id ?? null}::text,
      ${details instanceof Prisma.Sql ? details : JSON.stringify(details)}::jsonb ${source}`;
}

/** The audit log in the database: append-only, by a trigger. */
@Injectable()
export class AuditLogRepository {
  constructor(private readonly database: Database) {}

  /** Records what changes nothing else, such as a login that failed. */
  async record(event: AuditEvent): Promise<void> {
    await this.database.$executeRaw(auditInsert(event));
  }

  /** Deletes at most `limit` entries older than `days`; returns how many. */
  forget(days: number, limit: number): Promise<number> {
    return this.database.$executeRaw`
      DELETE FROM audit_log WHERE id IN (
        SELECT id FROM audit_log WHERE at < now() - make_interval(days => ${days}::int) LIMIT ${limit})`;
  }
}
