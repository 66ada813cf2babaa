import { EventEmitter } from 'node:events';

import { Injectable } from '@nestjs/common';

import { type AuditEvent, AuditLogRepository } from '../audit/audit-log.repository.js';
import { PlatformError } from '../platform/errors/error-register.js';
import { noteWrite } from '../platform/http/request-context.js';
import type { UserView } from '../users/user.js';
import { UsersRepository } from '../users/users.repository.js';
import { AccessTokenIssuer } from './access-token.js';
import { AuthSessionsRepository } from './auth-sessions.repository.js';
import type { LoginRequest, SignupRequest, TokenPair } from './auth.schemas.js';
import { LoginAttempts } from './login-attempts.js';
import { PasswordHasher } from './password-hasher.js';
import { refuseWeakPassword } from './passwords.service.js';
import { newRefreshToken } from './refresh-token.js';

/** What an attempt to log in came to. */
export const LOGIN_OUTCOMES = ['succeeded', 'refused', 'suspended', 'limited', 'failed'] as const;
export type LoginOutcome = (typeof LOGIN_OUTCOMES)[number];

/** Signs accounts up and in. */
@Injectable()
export class AuthService {
  /** Tells of each attempt to log in. */
  readonly logins = new EventEmitter<{ attempted: [LoginOutcome] }>();

  constructor(
    private readonly audit: AuditLogRepository,
    private readonly users: UsersRepository,
    private readonly sessions: AuthSessionsRepository,
    private readonly passwords: PasswordHasher,
    private readonly accessTokens: AccessTokenIssuer,
    private readonly attempts: LoginAttempts,
  ) {}

  /** @throws PlatformError VALIDATION_FAILED, EMAIL_TAKEN */
  async signup({ email, password, name }: SignupRequest): Promise<TokenPair> {
    refuseWeakPassword('password', password, email);
    const passwordHash = await this.passwords.hash(password);
    const user = await this.users.create({ email, name: name ?? null, passwordHash, role: 'user', plan: 'free' });
    if (!user) throw new PlatformError('EMAIL_TAKEN');
    return this.begin(user, passwordHash);
  }

  /**
   * @param ip of the caller
   * @throws PlatformError INVALID_CREDENTIALS, TOO_MANY_REQUESTS, or ACCOUNT_SUSPENDED to who knows the password.
   */
  async login(request: LoginRequest, ip: string): Promise<TokenPair> {
    try {
      const tokens = await this.attempts.watch(request.email, ip, () => this.checkPassword(request));
      this.logins.emit('attempted', 'succeeded');
      return tokens;
    } catch (error) {
      this.logins.emit('attempted', outcomeOf(error));
      throw error;
    }
  }

  private async checkPassword({ email, password }: LoginRequest): Promise<TokenPair> {
    const user = await this.users.findByEmail(email);
    if (!(await this.passwords.verify(user?.passwordHash ?? null, password)) || !user) {
      // of an unknown e-mail no word is kept: it may be somebody's, and people type passwords into that field
      await this.audit.record({ action: 'login.failed', ...aboutAccount(user?.id) });
      throw new PlatformError('INVALID_CREDENTIALS');
    }
    if (user.suspendedAt) {
      await this.audit.record({ action: 'login.refused', ...aboutAccount(user.id), details: { reason: 'suspended' } });
      throw new PlatformError('ACCOUNT_SUSPENDED');
    }
    return this.begin(user, user.passwordHash);
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

  private async begin(user: UserView, passwordHash: string): Promise<TokenPair> {
    const refreshToken = newRefreshToken();
    const sessionId = await this.sessions.begin(user.id, passwordHash, refreshToken);
    // somebody has changed the password, or suspended the account, since we looked
    if (!sessionId) throw new PlatformError('INVALID_CREDENTIALS');
    return this.pair(user, sessionId, refreshToken);
  }

  private pair(user: UserView, sessionId: string, refreshToken: string): TokenPair {
    noteWrite(user.id);
    return {
      accessToken: this.accessTokens.issue(user.id, sessionId),
      refreshToken,
      expiresIn: this.accessTokens.lifeSeconds,
      user,
    };
  }
}

function outcomeOf(error: unknown): LoginOutcome {
  switch (error instanceof PlatformError ? error.code : undefined) {
    case 'INVALID_CREDENTIALS':
      return 'refused';
    case 'ACCOUNT_SUSPENDED':
      return 'suspended';
    case 'TOO_MANY_REQUESTS':
      return 'limited';
    default:
      return 'failed';
  }
}

/** Where the account is known, an event about it. */
function aboutAccount(userId: string | undefined): Pick<AuditEvent, 'target' | 'userId'> {
  return userId === undefined ? {} : { target: { type: 'user', id: userId }, userId };
}
