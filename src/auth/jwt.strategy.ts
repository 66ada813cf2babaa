import { Inject, Injectable } from '@nestjs/common';
import { PassportStrategy } from '@nestjs/passport';
import { Strategy } from 'passport-jwt';

import { CONFIG, type Config } from '../platform/config/config.js';
import type { Caller } from '../platform/http/route-metadata.js';
import { ACCESS_TOKEN_CHECKS, AccessToken, signingKeyOf } from './access-token.js';
import { AuthSessionsRepository } from './auth-sessions.repository.js';
import { bearerTokenOf } from './bearer-token.js';

/**
 * Checks the bearer token, then the session it names: a logout, a suspension or a change of role counts from the next
 * request on, and not when the token expires (OWASP ASVS 5.0, 7.4.1).
 */
@Injectable()
export class JwtStrategy extends PassportStrategy(Strategy) {
  constructor(
    @Inject(CONFIG) config: Config,
    private readonly sessions: AuthSessionsRepository,
  ) {
    super({
      jwtFromRequest: bearerTokenOf,
      secretOrKey: signingKeyOf(config),
      ...ACCESS_TOKEN_CHECKS,
      // with the header, for the type of the token
      jsonWebTokenOptions: { complete: true },
    });
  }

  async validate(verified: unknown): Promise<Caller | null> {
    const token = AccessToken.safeParse(verified);
    if (!token.success) return null;
    const session = await this.sessions.findAlive(token.data.payload.sid, token.data.payload.sub);
    return session && { ...session, userId: session.id, apiKeyId: null, scopes: null };
  }
}
