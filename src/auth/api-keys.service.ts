import { timingSafeEqual } from 'node:crypto';

import { Injectable } from '@nestjs/common';
import { z } from 'zod';

import { PlatformError } from '../platform/errors/error-register.js';
import { cutPage, keyOfCursor, type Page, type PageQuery } from '../platform/http/page.js';
import type { Caller, LoggedIn } from '../platform/http/route-metadata.js';
import type { NewResource } from '../platform/idempotency/idempotency-keys.repository.js';
import { apiKeyOf, hashApiKeySecret, parseApiKey } from './api-key.js';
import { type ApiKeyView, type CreateApiKeyRequest, type CreatedApiKey, viewApiKey } from './api-key.schemas.js';
import { AuthSessionsRepository } from './auth-sessions.repository.js';
import { ApiKeysRepository } from './api-keys.repository.js';

/** Makes, lists and revokes API keys, and finds out who comes with one. */
@Injectable()
export class ApiKeysService {
  constructor(
    private readonly keys: ApiKeysRepository,
    private readonly sessions: AuthSessionsRepository,
  ) {}

  /** @throws PlatformError FORBIDDEN, API_KEY_LIMIT, UNAUTHENTICATED: the login has ended meanwhile */
  async create(
    caller: LoggedIn,
    { name, scopes, expiresAt }: CreateApiKeyRequest,
    resource: NewResource,
  ): Promise<CreatedApiKey> {
    const { id, secret, key } = apiKeyOf(resource.id, resource.secret);
    const forAdmin = scopes.some((scope) => scope.startsWith('admin:'));
    if (forAdmin && caller.role !== 'admin') {
      throw new PlatformError('FORBIDDEN', { detail: 'Scopes of admin: are for administrators' });
    }
    const hash = hashApiKeySecret(secret);
    const { userId, sessionId } = caller;
    const row = await this.keys.create({
      id,
      userId,
      sessionId,
      name,
      hash,
      scopes,
      expiresAt: expiresAt ?? null,
      forAdmin,
    });
    if (row) return { ...viewApiKey(row), key };
    const isAlive = await this.sessions.findAlive(sessionId, userId);
    throw new PlatformError(isAlive ? 'API_KEY_LIMIT' : 'UNAUTHENTICATED');
  }

  async list({ userId }: LoggedIn, { limit, cursor }: PageQuery): Promise<Page<ApiKeyView>> {
    const after = cursor === undefined ? undefined : keyOfCursor(cursor, z.guid());
    return cutPage((await this.keys.list(userId, limit + 1, after)).map(viewApiKey), limit);
  }

  /** @throws PlatformError NOT_FOUND */
  async revoke({ userId }: LoggedIn, id: string): Promise<void> {
    if (!(await this.keys.revoke(userId, id))) throw new PlatformError('NOT_FOUND');
  }

  /** Who comes with this key; `null` when it does not work, or not any more. */
  async authenticate(key: string): Promise<Caller | null> {
    const parts = parseApiKey(key);
    if (!parts) return null;
    const found = await this.keys.findOpen(parts.id);
    if (!found || !timingSafeEqual(found.hash, hashApiKeySecret(parts.secret))) return null;
    // apart: most requests write nothing
    if (found.isNoteDue) await this.keys.noteUse(parts.id);
    const { id: userId, email, name, role, plan, scopes, readFence } = found;
    return { userId, sessionId: null, apiKeyId: parts.id, scopes, email, name, role, plan, readFence };
  }
}
