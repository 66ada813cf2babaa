import { Inject, Injectable } from '@nestjs/common';
import jwt from 'jsonwebtoken';

import { CONFIG, type Config } from '../platform/config/config.js';
import { PlatformError } from '../platform/errors/error-register.js';
import type { ApiKeyScope } from '../platform/http/api-key-scope.js';
import { Callers } from '../platform/http/callers.js';
import type { Caller } from '../platform/http/route-metadata.js';
import { ACCESS_TOKEN_CHECKS, signingKeyOf } from './access-token.js';
import { looksLikeApiKey } from './api-key.js';
import { ApiKeysRepository } from './api-keys.repository.js';
import { ApiKeysService } from './api-keys.service.js';
import { AuthSessionsRepository } from './auth-sessions.repository.js';
import { JwtStrategy } from './jwt.strategy.js';

/** Knows callers by their tokens, as the guard of the routes does. */
@Injectable()
export class TokenCallers extends Callers {
  private readonly key;

  constructor(
    @Inject(CONFIG) config: Config,
    private readonly strategy: JwtStrategy,
    private readonly sessions: AuthSessionsRepository,
    private readonly apiKeys: ApiKeysService,
    private readonly keys: ApiKeysRepository,
  ) {
    super();
    this.key = signingKeyOf(config);
  }

  async identify(token: string, scope: ApiKeyScope): Promise<Caller> {
    const caller = looksLikeApiKey(token)
      ? await this.apiKeys.authenticate(token)
      : await this.strategy.validate(this.verified(token));
    if (!caller) throw new PlatformError('UNAUTHENTICATED');
    if (caller.scopes && !caller.scopes.includes(scope)) throw new PlatformError('SCOPE_MISSING');
    return caller;
  }

  async stillValid(callers: readonly Caller[]): Promise<ReadonlySet<Caller>> {
    const [sessions, keys] = await Promise.all([
      this.sessions.aliveOf(callers.flatMap(({ sessionId }) => sessionId ?? [])),
      this.keys.openOf(callers.flatMap(({ apiKeyId }) => apiKeyId ?? [])),
    ]);
    return new Set(
      callers.filter(({ sessionId, apiKeyId }) => sessions.has(sessionId ?? '') || keys.has(apiKeyId ?? '')),
    );
  }

  private verified(token: string): unknown {
    try {
      return jwt.verify(token, this.key, { ...ACCESS_TOKEN_CHECKS, complete: true });
    } catch (error) {
      if (error instanceof jwt.JsonWebTokenError) return undefined;
      throw error;
    }
  }
}
