import { Injectable } from '@nestjs/common';
import { z } from 'zod';

import { PlatformError } from '../platform/errors/error-register.js';
import { cutPage, keyOfCursor, type Page, type PageQuery } from '../platform/http/page.js';
import type { LoggedIn } from '../platform/http/route-metadata.js';
import { AuthSessionsRepository } from './auth-sessions.repository.js';
import { type SessionView, viewSession } from './session.js';

/** An account's logins, as its owner sees and ends them. */
@Injectable()
export class SessionsService {
  constructor(private readonly sessions: AuthSessionsRepository) {}

  async list({ userId, sessionId }: LoggedIn, { limit, cursor }: PageQuery): Promise<Page<SessionView>> {
    const after = cursor === undefined ? undefined : keyOfCursor(cursor, z.guid());
    const rows = await this.sessions.listAlive(userId, limit + 1, after);
    return cutPage(
      rows.map((row) => viewSession(row, sessionId)),
      limit,
    );
  }

  /** @throws PlatformError NOT_FOUND */
  async end({ userId }: LoggedIn, id: string): Promise<void> {
    if (!(await this.sessions.end(userId, id, 'ended_by_owner'))) throw new PlatformError('NOT_FOUND');
  }

  async logout({ userId, sessionId }: LoggedIn): Promise<void> {
    await this.sessions.end(userId, sessionId, 'logout');
  }

  logoutAll({ userId }: LoggedIn): Promise<void> {
    return this.sessions.endAll(userId);
  }
}
