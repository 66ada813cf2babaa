import { Inject, Injectable } from '@nestjs/common';

import { CONFIG, type Config } from '../platform/config/config.js';
import { PlatformError } from '../platform/errors/error-register.js';
import type { UserView } from '../users/user.js';
import { UsersRepository } from '../users/users.repository.js';
import { AccessTokenIssuer } from './access-token.js';
import { AuthSessionsRepository } from './auth-sessions.repository.js';
import type { LoginRequest, SignupRequest, TokenPair } from './auth.schemas.js';
import { PasswordHasher } from './password-hasher.js';
import { newRefreshToken } from './refresh-token.js';

/** Signs accounts up, in and out. */
@Injectable()
export class AuthService {
  constructor(
    @Inject(CONFIG) private readonly config: Config,
    private readonly users: UsersRepository,
    private readonly sessions: AuthSessionsRepository,
    private readonly passwords: PasswordHasher,
    private readonly accessTokens: AccessTokenIssuer,
  ) {}

  /** @throws PlatformError EMAIL_TAKEN */
  async signup({ email, password, name }: SignupRequest): Promise<TokenPair> {
    const passwordHash = await this.passwords.hash(password);
    const user = await this.users.create({ email, name: name ?? null, passwordHash, role: 'user', plan: 'free' });
    if (!user) throw new PlatformError('EMAIL_TAKEN');
    return this.begin(user);
  }

  /** @throws PlatformError INVALID_CREDENTIALS, or ACCOUNT_SUSPENDED to who knows the password. */
  async login({ email, password }: LoginRequest): Promise<TokenPair> {
    const user = await this.users.findByEmail(email);
    if (!(await this.passwords.verify(user?.passwordHash ?? null, password)) || !user) {
      throw new PlatformError('INVALID_CREDENTIALS');
    }
    if (user.suspendedAt) throw new PlatformError('ACCOUNT_SUSPENDED');
    return this.begin(user);
  }

  /** @throws PlatformError INVALID_REFRESH_TOKEN */
  async refresh(token: string): Promise<TokenPair> {
    const next = newRefreshToken();
    const session = await this.sessions.rotate(token, next);
    if (!session) {
      await this.sessions.endIfReused(token);
      throw new PlatformError('INVALID_REFRESH_TOKEN');
    }
    return this.pair(session, session.sessionId, next);
  }

  logout(sessionId: string): Promise<void> {
    return this.sessions.end(sessionId);
  }

  private async begin(user: UserView): Promise<TokenPair> {
    const refreshToken = newRefreshToken();
    const sessionId = await this.sessions.begin(user.id, refreshToken, this.config.SESSION_DAYS);
    return this.pair(user, sessionId, refreshToken);
  }

  private pair(user: UserView, sessionId: string, refreshToken: string): TokenPair {
    return {
      accessToken: this.accessTokens.issue(user.id, sessionId),
      refreshToken,
      expiresIn: this.accessTokens.lifeSeconds,
      user,
    };
  }
}
