import { Injectable } from '@nestjs/common';
import { z } from 'zod';

import { auditInsert } from '../audit/audit-log.repository.js';
import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import { ReadFence } from '../platform/database/read-fence.js';
import { ApiKeyScope } from '../platform/http/api-key-scope.js';
import { UserView } from '../users/user.js';

/**
 * Keys of one account that work at a time: one for each program and machine of a large household, and few enough that their owner
 * knows what each is for.
 */
const OPEN_KEYS_MAX = 20;

/** A scope that a later version has and this one does not know allows nothing here. */
const Scopes = z.array(z.string()).transform((scopes) => ApiKeyScope.options.filter((scope) => scopes.includes(scope)));

const ApiKeyRow = z.object({
  id: z.guid(),
  name: z.string(),
  scopes: Scopes,
  createdAt: z.date(),
  lastUsedAt: z.date().nullable(),
  expiresAt: z.date().nullable(),
  revokedAt: z.date().nullable(),
});
/** An API key as it is stored, without its hash. */
export type ApiKeyRow = z.output<typeof ApiKeyRow>;

/** A key that works, with the account that it works for. */
const OpenKey = UserView.extend({
  hash: z.instanceof(Uint8Array),
  scopes: Scopes,
  isNoteDue: z.boolean(),
  readFence: ReadFence,
});
export type OpenKey = z.output<typeof OpenKey>;

interface NewApiKey {
  readonly id: string;
  readonly userId: string;
  /** The login that makes it. */
  readonly sessionId: string;
  readonly name: string;
  readonly hash: Uint8Array;
  readonly scopes: readonly ApiKeyScope[];
  readonly expiresAt: string | null;
  /** Whether a scope is only for administrators. */
  readonly forAdmin: boolean;
}

const COLUMNS = Prisma.sql`k.id, k.name, k.scopes, k.created_at AS "createdAt", k.last_used_at AS "lastUsedAt",
  k.expires_at AS "expiresAt", k.revoked_at AS "revokedAt"`;
const OPEN = Prisma.sql`k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())`;
/** Precise enough to find a key that nobody needs any more, and no write with every request. */
const USE_IS_TO_BE_NOTED = Prisma.sql`(k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute')`;
/** Above every id. */
const UUID_MAX = 'ffffffff-ffff-ffff-ffff-ffffffffffff';

/** API keys in the database. */
@Injectable()
export class ApiKeysRepository {
  constructor(private readonly database: Database) {}

  /**
   * `null` when the account has as many open keys as it may have, may not have such a key, or its login has ended. Under the
   * account's lock, which whatever ends all logins takes too: of two requests for the last one, one gets it. One that exists under this id and hash has been created before.
   */
  async create({
    id,
    userId,
    sessionId,
    name,
    hash,
    scopes,
    expiresAt,
    forAdmin,
  }: NewApiKey): Promise<ApiKeyRow | null> {
    const event = {
      action: 'api_key.created',
      target: { type: 'api_key', id },
      details: { name, scopes: scopes.join(' '), expiresAt },
    } as const;
    const [created] = await this.database.rowsUnderAccountLock(
      userId,
      ApiKeyRow,
      Prisma.sql`
        WITH k AS (
          INSERT INTO api_keys (id, user_id, name, hash, scopes, expires_at)
          SELECT ${id}::uuid, u.id, ${name}, ${hash}, ${scopes}::text[], ${expiresAt}::timestamptz
          FROM users u
          WHERE u.id = ${userId}::uuid AND u.suspended_at IS NULL AND (u.role = 'admin' OR NOT ${forAdmin})
            AND EXISTS (SELECT FROM auth_sessions s WHERE s.id = ${sessionId}::uuid AND s.user_id = u.id AND s.ended_at IS NULL)
            AND (SELECT count(*) FROM api_keys k WHERE k.user_id = u.id AND ${OPEN}) < ${OPEN_KEYS_MAX}
          ON CONFLICT (id) DO NOTHING
          RETURNING *
        ), audited AS (${auditInsert(event, Prisma.sql`k`)})
        SELECT ${COLUMNS} FROM k
        UNION ALL
        SELECT ${COLUMNS} FROM api_keys k WHERE k.id = ${id}::uuid AND k.user_id = ${userId}::uuid AND k.hash = ${hash}`,
    );
    return created ?? null;
  }

  /** An account's keys, newest first, beginning behind `after`; those that have ended stay for a time. */
  list(userId: string, limit: number, after: string | undefined): Promise<ApiKeyRow[]> {
    return this.database.rows(
      ApiKeyRow,
      Prisma.sql`
        SELECT ${COLUMNS} FROM api_keys k WHERE k.user_id = ${userId}::uuid AND k.id < ${after ?? UUID_MAX}::uuid
        ORDER BY k.id DESC LIMIT ${limit}`,
    );
  }

  /** Revokes a key of the account; false: it has none of this id that is not revoked yet. */
  async revoke(userId: string, id: string): Promise<boolean> {
    const event = { action: 'api_key.revoked', target: { type: 'api_key', id } } as const;
    const revoked = await this.database.rows(
      z.object({ id: z.guid() }),
      Prisma.sql`
        WITH revoked AS (
          UPDATE api_keys SET revoked_at = now() WHERE id = ${id}::uuid AND user_id = ${userId}::uuid AND revoked_at IS NULL
          RETURNING id
        ), audited AS (${auditInsert(event, Prisma.sql`revoked`)})
        SELECT id FROM revoked`,
    );
    return revoked.length > 0;
  }

  /** A key that works now, of an account that is not suspended. */
  async findOpen(id: string): Promise<OpenKey | null> {
    const [found] = await this.database.rows(
      OpenKey,
      Prisma.sql`
        SELECT k.hash, k.scopes, ${USE_IS_TO_BE_NOTED} AS "isNoteDue", u.id, u.email, u.name, u.role, u.plan,
          ${this.database.readFenceOf(Prisma.sql`u.id`)} AS "readFence"
        FROM api_keys k JOIN users u ON u.id = k.user_id
        WHERE k.id = ${id}::uuid AND ${OPEN} AND u.suspended_at IS NULL`,
    );
    return found ?? null;
  }

  /** Which of many keys work now, of accounts that are not suspended. */
  async openOf(ids: readonly string[]): Promise<ReadonlySet<string>> {
    if (ids.length === 0) return new Set();
    const rows = await this.database.rows(
      z.object({ id: z.guid() }),
      Prisma.sql`
        SELECT k.id FROM api_keys k JOIN users u ON u.id = k.user_id
        WHERE k.id = ANY (${[...ids]}::uuid[]) AND ${OPEN} AND u.suspended_at IS NULL`,
    );
    return new Set(rows.map(({ id }) => id));
  }

  async noteUse(id: string): Promise<void> {
    await this.database.$executeRaw`
      UPDATE api_keys k SET last_used_at = now() WHERE k.id = ${id}::uuid AND ${USE_IS_TO_BE_NOTED}`;
  }
}
