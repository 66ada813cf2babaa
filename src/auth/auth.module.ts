import { Global, Module } from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import { PassportModule } from '@nestjs/passport';

import { AuditModule } from '../audit/audit.module.js';
import { Callers } from '../platform/http/callers.js';
import { UsersModule } from '../users/users.module.js';
import { AccessGuard } from './access.guard.js';
import { AccessTokenIssuer } from './access-token.js';
import { ApiKeysController } from './api-keys.controller.js';
import { ApiKeysRepository } from './api-keys.repository.js';
import { ApiKeysService } from './api-keys.service.js';
import { AuthController } from './auth.controller.js';
import { AuthRetentionRepository } from './auth-retention.repository.js';
import { AuthService } from './auth.service.js';
import { AuthSessionsRepository } from './auth-sessions.repository.js';
import { FirstAdmin } from './first-admin.js';
import { JwtStrategy } from './jwt.strategy.js';
import { LoginAttempts } from './login-attempts.js';
import { PasswordHasher } from './password-hasher.js';
import { PasswordsRepository } from './passwords.repository.js';
import { PasswordsService } from './passwords.service.js';
import { SessionsController } from './sessions.controller.js';
import { SessionsService } from './sessions.service.js';
import { TokenCallers } from './token-callers.js';

// global: what asks for Callers comes before auth, and imports nothing of it
@Global()
@Module({
  imports: [PassportModule, AuditModule, UsersModule],
  controllers: [AuthController, SessionsController, ApiKeysController],
  providers: [
    AccessTokenIssuer,
    ApiKeysRepository,
    ApiKeysService,
    AuthRetentionRepository,
    AuthService,
    AuthSessionsRepository,
    FirstAdmin,
    JwtStrategy,
    LoginAttempts,
    PasswordHasher,
    PasswordsRepository,
    PasswordsService,
    SessionsService,
    { provide: APP_GUARD, useClass: AccessGuard },
    { provide: Callers, useClass: TokenCallers },
  ],
  exports: [AuthRetentionRepository, AuthService, Callers, PasswordHasher],
})
export class AuthModule {}
