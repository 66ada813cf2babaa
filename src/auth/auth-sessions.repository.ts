import { Inject, Injectable } from '@nestjs/common';
import { v7 as uuidv7 } from 'uuid';
import { z } from 'zod';

import { auditInsert, USER_AGENT_CHARS_MAX } from '../audit/audit-log.repository.js';
import { CONFIG, type Config } from '../platform/config/config.js';
import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import { ReadFence } from '../platform/database/read-fence.js';
import { addressOf } from '../platform/http/request-address.js';
import { currentRequest } from '../platform/http/request-context.js';
import { UserView } from '../users/user.js';
import { hashRefreshToken } from './refresh-token.js';

/**
 * Sessions of one account at a time: more than anybody has devices, and few enough to be listed and ended. Scripts should use
 * API keys: one that logs in every time ends its own sessions of long ago.
 */
const SESSIONS_MAX = 100;

/**
 * An honest client may send the same refresh twice (two tabs, a lost answer). Within this time the second is refused
 * without harm, if nothing was refreshed since; later it means that a stolen token is about, and the whole session ends
 * (RFC 9700 §4.14.2).
 */
const HONEST_REPEAT_SECONDS = 10;

/**
 * Spent refresh tokens that a session keeps, to know them when they come again: ten days of a refresh every 15 minutes. One that
 * is older is refused like one that never was.
 */
const SPENT_TOKENS_MAX = 1_000;

const SessionUser = UserView.extend({ sessionId: z.guid() });
const AliveSession = SessionUser.extend({ readFence: ReadFence });
/** A session with the account it belongs to. */
export type SessionUser = z.infer<typeof SessionUser>;
/** What the check of a request finds. */
export type AliveSession = z.infer<typeof AliveSession>;

const SessionRow = z.object({
  id: z.guid(),
  createdAt: z.date(),
  lastUsedAt: z.date(),
  expiresAt: z.date(),
  userAgent: z.string().nullable(),
  clientAddress: z.string().nullable(),
});
/** A session as it is stored. */
export type SessionRow = z.infer<typeof SessionRow>;

const Ended = z.object({ id: z.guid() });

const USER_COLUMNS = Prisma.sql`u.id, u.email, u.name, u.role, u.plan`;
/** Precise enough to find an old login by, and no write with every request. */
const USE_IS_TO_BE_NOTED = Prisma.sql`s.last_used_at < now() - interval '1 minute'`;
/** Above every id. */
const UUID_MAX = 'ffffffff-ffff-ffff-ffff-ffffffffffff';

/** Logins and their refresh tokens in the database. */
@Injectable()
export class AuthSessionsRepository {
  /** A session that still counts, of an account that is not suspended. */
  private readonly alive: Prisma.Sql;

  constructor(
    private readonly database: Database,
    @Inject(CONFIG) private readonly config: Config,
  ) {
    this.alive = Prisma.sql`s.ended_at IS NULL AND s.expires_at > now() AND u.suspended_at IS NULL
      AND s.last_used_at > now() - make_interval(days => ${config.SESSION_IDLE_DAYS}::int)`;
  }

  /**
   * Begins a session with its first refresh token and returns the session's id; `null` when the account has another
   * password by now, or is suspended: a change of password that came in between has ended what the old one began.
   * Of more than {@link SESSIONS_MAX} sessions, the oldest ends.
   */
  async begin(userId: string, passwordHash: string, refreshToken: string): Promise<string | null> {
    const request = currentRequest();
    const userAgent = request?.headers['user-agent']?.slice(0, USER_AGENT_CHARS_MAX) ?? null;
    const login = {
      action: 'login.succeeded',
      target: { type: 'session', id: Prisma.sql`begun.id` },
      actorId: Prisma.sql`begun.user_id`,
    } as const;
    const displaced = {
      action: 'session.ended',
      target: { type: 'session', id: Prisma.sql`displaced.id` },
      actorId: Prisma.sql`displaced.user_id`,
      details: { reason: 'too_many' },
    } as const;
    const [begun] = await this.database.rowsUnderAccountLock(
      userId,
      Ended,
      Prisma.sql`
        WITH begun AS (
          INSERT INTO auth_sessions (id, user_id, expires_at, client_address, user_agent)
          SELECT ${uuidv7()}::uuid, id, now() + make_interval(days => ${this.config.SESSION_DAYS}::int),
            ${addressOf(request?.ip)}::text, ${userAgent}::text
          FROM users WHERE id = ${userId}::uuid AND password_hash = ${passwordHash} AND suspended_at IS NULL
          RETURNING id, user_id
        ), issued AS (
          INSERT INTO refresh_tokens (hash, session_id) SELECT ${hashRefreshToken(refreshToken)}, id FROM begun
        ), displaced AS (
          UPDATE auth_sessions SET ended_at = now() WHERE id IN (
            SELECT s.id FROM auth_sessions s JOIN users u ON u.id = s.user_id
            WHERE s.user_id = (SELECT user_id FROM begun) AND ${this.alive} ORDER BY s.id DESC OFFSET ${SESSIONS_MAX - 1})
          RETURNING id, user_id
        ), audited AS (${auditInsert(login, Prisma.sql`begun`)}
        ), audited_too AS (${auditInsert(displaced, Prisma.sql`displaced`)})
        SELECT id FROM begun`,
    );
    return begun?.id ?? null;
  }

  /** Spends one refresh token and stores the next, in one statement: of parallel callers exactly one gets a session. */
  async rotate(spent: string, next: string): Promise<SessionUser | null> {
    const [session] = await this.database.rows(
      SessionUser,
      Prisma.sql`
        WITH spent AS (
          UPDATE refresh_tokens t SET spent_at = now()
          FROM auth_sessions s JOIN users u ON u.id = s.user_id
          WHERE t.hash = ${hashRefreshToken(spent)} AND t.spent_at IS NULL AND s.id = t.session_id AND ${this.alive}
          RETURNING s.id AS "sessionId", ${USER_COLUMNS}
        ), issued AS (
          INSERT INTO refresh_tokens (hash, session_id) SELECT ${hashRefreshToken(next)}, "sessionId" FROM spent
        ), used AS (
          UPDATE auth_sessions SET last_used_at = now() WHERE id = (SELECT "sessionId" FROM spent)
        ), forgotten AS (
          DELETE FROM refresh_tokens WHERE hash IN (
            SELECT hash FROM refresh_tokens WHERE session_id = (SELECT "sessionId" FROM spent) AND spent_at IS NOT NULL
            ORDER BY spent_at DESC OFFSET ${SPENT_TOKENS_MAX - 1})
        )
        SELECT * FROM spent`,
    );
    return session ?? null;
  }

  /**
   * Ends the session of a refresh token that was spent before. Not of an honest repeat, and that can only be of the token
   * that was spent last: whoever has refreshed with its successor has no use for an older one.
   */
  async endIfReused(token: string): Promise<void> {
    const reuse = {
      action: 'session.refresh_token_reused',
      target: { type: 'session', id: Prisma.sql`ended.id` },
      userId: Prisma.sql`ended.user_id`,
    } as const;
    await this.database.rows(
      Ended,
      Prisma.sql`
        WITH ended AS (
          UPDATE auth_sessions s SET ended_at = now()
          FROM refresh_tokens t
          WHERE t.hash = ${hashRefreshToken(token)} AND s.id = t.session_id AND s.ended_at IS NULL AND (
            t.spent_at < now() - make_interval(secs => ${HONEST_REPEAT_SECONDS})
            OR EXISTS (SELECT FROM refresh_tokens later WHERE later.session_id = s.id AND later.spent_at > t.spent_at))
          RETURNING s.id, s.user_id
        ), audited AS (${auditInsert(reuse, Prisma.sql`ended`)})
        SELECT id FROM ended`,
    );
  }

  /** The account behind a session that still counts; notes that it is used. */
  async findAlive(sessionId: string, userId: string): Promise<AliveSession | null> {
    const [found] = await this.database.rows(
      AliveSession.extend({ isNoteDue: z.boolean() }),
      Prisma.sql`
        SELECT s.id AS "sessionId", ${USER_COLUMNS}, ${USE_IS_TO_BE_NOTED} AS "isNoteDue",
          ${this.database.readFenceOf(Prisma.sql`u.id`)} AS "readFence"
        FROM auth_sessions s JOIN users u ON u.id = s.user_id
        WHERE s.id = ${sessionId}::uuid AND s.user_id = ${userId}::uuid AND ${this.alive}`,
    );
    if (!found) return null;
    const { isNoteDue, ...session } = found;
    // apart: most requests write nothing
    if (isNoteDue)
      await this.database.$executeRaw`
        UPDATE auth_sessions s SET last_used_at = now() WHERE s.id = ${sessionId}::uuid AND ${USE_IS_TO_BE_NOTED}`;
    return session;
  }

  /** Which of many sessions still count. */
  async aliveOf(sessionIds: readonly string[]): Promise<ReadonlySet<string>> {
    if (sessionIds.length === 0) return new Set();
    const rows = await this.database.rows(
      z.object({ id: z.guid() }),
      Prisma.sql`
        SELECT s.id FROM auth_sessions s JOIN users u ON u.id = s.user_id
        WHERE s.id = ANY (${[...sessionIds]}::uuid[]) AND ${this.alive}`,
    );
    return new Set(rows.map(({ id }) => id));
  }

  /** An account's sessions that still count, newest first, beginning behind `after`. */
  listAlive(userId: string, limit: number, after: string | undefined): Promise<SessionRow[]> {
    return this.database.rows(
      SessionRow,
      Prisma.sql`
        SELECT s.id, s.created_at AS "createdAt", s.last_used_at AS "lastUsedAt", s.expires_at AS "expiresAt",
          s.user_agent AS "userAgent", s.client_address AS "clientAddress"
        FROM auth_sessions s JOIN users u ON u.id = s.user_id
        WHERE s.user_id = ${userId}::uuid AND ${this.alive} AND s.id < ${after ?? UUID_MAX}::uuid
        ORDER BY s.id DESC LIMIT ${limit}`,
    );
  }

  /** Ends one session: its refresh tokens and its access tokens are worth nothing from now on. False: there is none. */
  async end(userId: string, sessionId: string, reason: 'logout' | 'ended_by_owner'): Promise<boolean> {
    const event = {
      action: 'session.ended',
      target: { type: 'session', id: sessionId },
      details: { reason },
    } as const;
    const ended = await this.database.rows(
      Ended,
      Prisma.sql`
        WITH ended AS (
          UPDATE auth_sessions s SET ended_at = now() FROM users u
          WHERE s.id = ${sessionId}::uuid AND s.user_id = ${userId}::uuid AND u.id = s.user_id AND ${this.alive}
          RETURNING s.id
        ), audited AS (${auditInsert(event, Prisma.sql`ended`)})
        SELECT id FROM ended`,
    );
    return ended.length > 0;
  }

  /** Ends all sessions of an account. Under its lock: a login that is under way begins before it, and is ended, or after it. */
  async endAll(userId: string): Promise<void> {
    const event = {
      action: 'sessions.ended',
      target: { type: 'user', id: userId },
      details: Prisma.sql`jsonb_build_object('reason', 'logout_all', 'sessions', (SELECT count(*) FROM ended))`,
    } as const;
    await this.database.rowsUnderAccountLock(
      userId,
      Ended,
      Prisma.sql`
        WITH ended AS (
          UPDATE auth_sessions s SET ended_at = now() FROM users u
          WHERE s.user_id = ${userId}::uuid AND u.id = s.user_id AND ${this.alive}
          RETURNING s.id
        ), audited AS (${auditInsert(event)})
        SELECT id FROM ended`,
    );
  }
}
