import { Inject, Injectable, type OnApplicationBootstrap } from '@nestjs/common';
import type { Logger } from 'pino';

import { CONFIG, type Config, ConfigError } from '../platform/config/config.js';
import { LOGGER } from '../platform/logging/logger.js';
import { Email } from '../users/user.js';
import { UsersRepository } from '../users/users.repository.js';
import { PasswordHasher } from './password-hasher.js';
import { weaknessOf } from './password-policy.js';

/**
 * Creates the administrator of ADMIN_EMAIL and ADMIN_PASSWORD. An account that exists is left as it is: whoever signed
 * up with that e-mail first must not become administrator by it.
 */
@Injectable()
export class FirstAdmin implements OnApplicationBootstrap {
  constructor(
    @Inject(CONFIG) private readonly config: Config,
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly users: UsersRepository,
    private readonly passwords: PasswordHasher,
  ) {}

  async onApplicationBootstrap(): Promise<void> {
    const { ADMIN_EMAIL, ADMIN_PASSWORD } = this.config;
    if (!ADMIN_EMAIL || !ADMIN_PASSWORD) return;
    const email = Email.parse(ADMIN_EMAIL);
    const existing = await this.users.findByEmail(email);
    if (!existing) {
      const weakness = weaknessOf(ADMIN_PASSWORD.reveal(), email);
      if (weakness !== null) throw new ConfigError(`ADMIN_PASSWORD ${weakness}`);
      const passwordHash = await this.passwords.hash(ADMIN_PASSWORD.reveal());
      const created = await this.users.create({ email, name: null, passwordHash, role: 'admin', plan: 'enterprise' });
      // null: another backend was faster
      if (created) this.logger.info({ userId: created.id }, 'administrator created');
    } else if (existing.role !== 'admin') {
      this.logger.warn({ userId: existing.id }, 'ADMIN_EMAIL belongs to an ordinary account: left as it is');
    }
  }
}
