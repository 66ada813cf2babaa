import { Injectable } from '@nestjs/common';

import { AuditLogRepository } from '../audit/audit-log.repository.js';
import { PlatformError } from '../platform/errors/error-register.js';
import type { LoggedIn } from '../platform/http/route-metadata.js';
import { UsersRepository } from '../users/users.repository.js';
import type { ChangePasswordRequest } from './auth.schemas.js';
import { LoginAttempts } from './login-attempts.js';
import { PasswordHasher } from './password-hasher.js';
import { weaknessOf } from './password-policy.js';
import { PasswordsRepository } from './passwords.repository.js';

/** Changes passwords. */
@Injectable()
export class PasswordsService {
  constructor(
    private readonly attempts: LoginAttempts,
    private readonly audit: AuditLogRepository,
    private readonly users: UsersRepository,
    private readonly hasher: PasswordHasher,
    private readonly passwords: PasswordsRepository,
  ) {}

  /**
   * @param ip of the caller: whoever found a login left open guesses no faster than at the door
   * @throws PlatformError VALIDATION_FAILED, CURRENT_PASSWORD_WRONG, TOO_MANY_REQUESTS
   */
  async change(caller: LoggedIn, request: ChangePasswordRequest, ip: string): Promise<void> {
    refuseWeakPassword('newPassword', request.newPassword, caller.email);
    await this.attempts.watch(caller.email, ip, () => this.replace(caller, request));
  }

  private async replace(caller: LoggedIn, { currentPassword, newPassword }: ChangePasswordRequest): Promise<void> {
    const { userId, sessionId, email } = caller;
    const oldHash = (await this.users.findByEmail(email))?.passwordHash ?? null;
    if (!(await this.hasher.verify(oldHash, currentPassword)) || oldHash === null) {
      // a session that was left open is no password: who tries some is in the log
      await this.audit.record({ action: 'login.failed', target: { type: 'user', id: userId } });
      throw new PlatformError('CURRENT_PASSWORD_WRONG');
    }
    const newHash = await this.hasher.hash(newPassword);
    const changed = await this.passwords.change({ userId, sessionId, oldHash, newHash });
    if (!changed) throw new PlatformError('CURRENT_PASSWORD_WRONG');
  }
}

/** @throws PlatformError VALIDATION_FAILED, naming the field `path`, when the password would be guessed. */
export function refuseWeakPassword(path: string, password: string, email: string): void {
  const message = weaknessOf(password, email);
  if (message !== null) throw new PlatformError('VALIDATION_FAILED', { errors: [{ path, message }] });
}
