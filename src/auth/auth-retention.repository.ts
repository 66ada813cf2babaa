import { Injectable } from '@nestjs/common';

import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';

/** API keys that are worth nothing any more are listed for so long, so that their owner sees why a program was refused. */
const DEAD_API_KEY_DAYS = 30;

/** By the indexes. An idle session is one of these when its absolute time has come. */
const ENDED = Prisma.sql`(s.ended_at IS NOT NULL OR s.expires_at <= now())`;

/** Deletes what is left of logins and API keys that have ended; the audit log remembers them. */
@Injectable()
export class AuthRetentionRepository {
  constructor(private readonly database: Database) {}

  /** Deletes at most `limit` refresh tokens of sessions that have ended; returns how many. */
  forgetRefreshTokens(limit: number): Promise<number> {
    return this.database.$executeRaw`
      DELETE FROM refresh_tokens WHERE hash IN (
        SELECT t.hash FROM refresh_tokens t JOIN auth_sessions s ON s.id = t.session_id
        WHERE ${ENDED} LIMIT ${limit} FOR UPDATE OF t SKIP LOCKED)`;
  }

  /** Deletes at most `limit` sessions that have ended and have no tokens left: those may be many, and go in batches of their own. */
  forgetSessions(limit: number): Promise<number> {
    return this.database.$executeRaw`
      DELETE FROM auth_sessions WHERE id IN (
        SELECT s.id FROM auth_sessions s
        WHERE ${ENDED} AND NOT EXISTS (SELECT FROM refresh_tokens t WHERE t.session_id = s.id)
        LIMIT ${limit} FOR UPDATE SKIP LOCKED)`;
  }

  /** Deletes at most `limit` API keys that were revoked or expired some time ago; returns how many. */
  forgetApiKeys(limit: number): Promise<number> {
    return this.database.$executeRaw`
      DELETE FROM api_keys WHERE id IN (
        SELECT id FROM api_keys
        WHERE revoked_at < now() - make_interval(days => ${DEAD_API_KEY_DAYS}::int)
           OR expires_at < now() - make_interval(days => ${DEAD_API_KEY_DAYS}::int)
        LIMIT ${limit} FOR UPDATE SKIP LOCKED)`;
  }
}
