import { Injectable } from '@nestjs/common';
import { v7 as uuidv7 } from 'uuid';
import { z } from 'zod';

import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import { UserView } from '../users/user.js';
import { hashRefreshToken } from './refresh-token.js';

/**
 * An honest client may send the same refresh twice (two tabs, a lost answer). Within this time the second is refused
 * without harm; later it means that a stolen token is about, and the whole session ends (RFC 9700 §4.14.2).
 */
const HONEST_REPEAT_SECONDS = 10;

const SessionUser = UserView.extend({ sessionId: z.guid() });
/** A session with the account it belongs to. */
export type SessionUser = z.infer<typeof SessionUser>;

const USER_COLUMNS = Prisma.sql`u.id, u.email, u.name, u.role, u.plan`;
/** A session that still counts, of an account that is not suspended. */
const ALIVE = Prisma.sql`s.ended_at IS NULL AND s.expires_at > now() AND u.suspended_at IS NULL`;

/** Logins and their refresh tokens in the database. */
@Injectable()
export class AuthSessionsRepository {
  constructor(private readonly database: Database) {}

  /** Begins a session with its first refresh token and returns the session's id. */
  async begin(userId: string, refreshToken: string, days: number): Promise<string> {
    const id = uuidv7();
    await this.database.authSession.create({
      data: {
        id,
        userId,
        expiresAt: new Date(Date.now() + days * 86_400_000),
        refreshTokens: { create: { hash: hashRefreshToken(refreshToken) } },
      },
    });
    return id;
  }

  /** Spends one refresh token and stores the next, in one statement: of parallel callers exactly one gets a session. */
  async rotate(spent: string, next: string): Promise<SessionUser | null> {
    const [session] = await this.database.rows(
      SessionUser,
      Prisma.sql`
        WITH spent AS (
          UPDATE refresh_tokens t SET spent_at = now()
          FROM auth_sessions s JOIN users u ON u.id = s.user_id
          WHERE t.hash = ${hashRefreshToken(spent)} AND t.spent_at IS NULL AND s.id = t.session_id AND ${ALIVE}
          RETURNING s.id AS "sessionId", ${USER_COLUMNS}
        ), issued AS (
          INSERT INTO refresh_tokens (hash, session_id) SELECT ${hashRefreshToken(next)}, "sessionId" FROM spent
        )
        SELECT * FROM spent`,
    );
    return session ?? null;
  }

  /** Ends the session of a refresh token that was spent before, unless it may be an honest repeat. */
  async endIfReused(token: string): Promise<void> {
    await this.database.$executeRaw`
      UPDATE auth_sessions s SET ended_at = now()
      FROM refresh_tokens t
      WHERE t.hash = ${hashRefreshToken(token)} AND s.id = t.session_id AND s.ended_at IS NULL
        AND t.spent_at < now() - make_interval(secs => ${HONEST_REPEAT_SECONDS})`;
  }

  /** The account behind a session that still counts. */
  async findAlive(sessionId: string, userId: string): Promise<SessionUser | null> {
    const [session] = await this.database.rows(
      SessionUser,
      Prisma.sql`
        SELECT s.id AS "sessionId", ${USER_COLUMNS} FROM auth_sessions s JOIN users u ON u.id = s.user_id
        WHERE s.id = ${sessionId}::uuid AND s.user_id = ${userId}::uuid AND ${ALIVE}`,
    );
    return session ?? null;
  }

  /** Ends one session: its refresh tokens and its access tokens are worth nothing from now on. */
  async end(sessionId: string): Promise<void> {
    await this.database.authSession.updateMany({
      where: { id: sessionId, endedAt: null },
      data: { endedAt: new Date() },
    });
  }
}
