import { Injectable } from '@nestjs/common';
import { z } from 'zod';

import { auditInsert } from '../audit/audit-log.repository.js';
import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';

interface PasswordChange {
  readonly userId: string;
  /** The session that goes on. */
  readonly sessionId: string;
  /** The hash that the current password was checked against. */
  readonly oldHash: string;
  readonly newHash: string;
}

/** Changes of passwords in the database. */
@Injectable()
export class PasswordsRepository {
  constructor(private readonly database: Database) {}

  /**
   * Replaces the hash and ends all other sessions of the account; false when the hash is another one by now: of changes that
   * checked the same password, one wins. Under the account's lock, which logins take too: none that began with the old password
   * is overlooked.
   */
  async change({ userId, sessionId, oldHash, newHash }: PasswordChange): Promise<boolean> {
    const event = {
      action: 'password.changed',
      target: { type: 'user', id: userId },
      details: Prisma.sql`jsonb_build_object('sessionsEnded', (SELECT count(*) FROM ended))`,
    } as const;
    const changed = await this.database.rowsUnderAccountLock(
      userId,
      z.object({ id: z.guid() }),
      Prisma.sql`
        WITH changed AS (
          UPDATE users SET password_hash = ${newHash}
          WHERE id = ${userId}::uuid AND password_hash = ${oldHash} AND suspended_at IS NULL RETURNING id
        ), ended AS (
          UPDATE auth_sessions SET ended_at = now()
          WHERE user_id = (SELECT id FROM changed) AND id <> ${sessionId}::uuid AND ended_at IS NULL AND expires_at > now()
          RETURNING id
        ), audited AS (${auditInsert(event, Prisma.sql`changed`)})
        SELECT id FROM changed`,
    );
    return changed.length > 0;
  }
}
