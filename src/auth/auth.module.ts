import { Module } from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import { PassportModule } from '@nestjs/passport';

import { UsersModule } from '../users/users.module.js';
import { AccessGuard } from './access.guard.js';
import { AccessTokenIssuer } from './access-token.js';
import { AuthController } from './auth.controller.js';
import { AuthService } from './auth.service.js';
import { AuthSessionsRepository } from './auth-sessions.repository.js';
import { FirstAdmin } from './first-admin.js';
import { JwtStrategy } from './jwt.strategy.js';
import { PasswordHasher } from './password-hasher.js';

@Module({
  imports: [PassportModule, UsersModule],
  controllers: [AuthController],
  providers: [
    AccessTokenIssuer,
    AuthService,
    AuthSessionsRepository,
    FirstAdmin,
    JwtStrategy,
    PasswordHasher,
    { provide: APP_GUARD, useClass: AccessGuard },
  ],
})
export class AuthModule {}
