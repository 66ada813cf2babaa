import { Inject, Injectable, type ExecutionContext } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import { AuthGuard } from '@nestjs/passport';
import type { FastifyRequest } from 'fastify';

import { CONFIG, type Config } from '../platform/config/config.js';
import { PlatformError } from '../platform/errors/error-register.js';
import type { ApiKeyScope } from '../platform/http/api-key-scope.js';
import { type Access, ACCESS_KEY } from '../platform/http/route-metadata.js';
import { looksLikeApiKey } from './api-key.js';
import { ApiKeysService } from './api-keys.service.js';
import { bearerTokenOf } from './bearer-token.js';
import { hasInternalKey } from './internal-api.js';

/** Lets a request through to its route or refuses it, by the route's access metadata. Applies to every route. */
@Injectable()
export class AccessGuard extends AuthGuard('jwt') {
  constructor(
    private readonly reflector: Reflector,
    @Inject(CONFIG) private readonly config: Config,
    private readonly apiKeys: ApiKeysService,
  ) {
    super();
  }

  override async canActivate(context: ExecutionContext): Promise<boolean> {
    const access = this.reflector.getAllAndOverride<Access | undefined>(ACCESS_KEY, [
      context.getHandler(),
      context.getClass(),
    ]);
    const request = context.switchToHttp().getRequest<FastifyRequest>();
    switch (access?.kind) {
      case 'public':
        return true;
      case 'internal':
        if (hasInternalKey(request.headers, this.config.INTERNAL_API_KEY)) return true;
        throw new PlatformError('INVALID_INTERNAL_KEY');
      case 'user':
      case 'admin':
        await this.authenticate(request, context);
        checkScope(request.caller?.scopes ?? null, access.scope);
        if (access.kind === 'admin' && request.caller?.role !== 'admin') throw new PlatformError('FORBIDDEN');
        return true;
      case undefined:
        // nobody has decided who may
        throw new PlatformError('FORBIDDEN');
    }
  }

  /** Finds out who calls: by an API key, else by an access token. @throws PlatformError UNAUTHENTICATED */
  private async authenticate(request: FastifyRequest, context: ExecutionContext): Promise<void> {
    const token = bearerTokenOf(request);
    if (token === null || !looksLikeApiKey(token)) {
      await super.canActivate(context);
      return;
    }
    const caller = await this.apiKeys.authenticate(token);
    if (!caller) throw new PlatformError('UNAUTHENTICATED');
    request.caller = caller;
  }

  override getAuthenticateOptions() {
    return { property: 'caller' };
  }

  override handleRequest<T>(error: unknown, caller: T | false | null): T {
    // as passport hands it on
    // oxlint-disable-next-line typescript/only-throw-error
    if (error) throw error;
    if (!caller) throw new PlatformError('UNAUTHENTICATED');
    return caller;
  }
}

/** @param scopes of the API key; null: a login. @throws PlatformError LOGIN_REQUIRED, SCOPE_MISSING */
function checkScope(scopes: readonly ApiKeyScope[] | null, needed: ApiKeyScope | null): void {
  if (scopes === null) return;
  if (needed === null) throw new PlatformError('LOGIN_REQUIRED');
  if (!scopes.includes(needed)) throw new PlatformError('SCOPE_MISSING', { detail: `This needs the scope ${needed}` });
}
