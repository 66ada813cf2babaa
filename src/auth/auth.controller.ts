import { Body, Controller, Get, Header, Post } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';

import { Answers } from '../platform/http/answers.decorator.js';
import { CurrentLogin, type LoggedIn, LoginOnly, Public } from '../platform/http/route-metadata.js';
import { UserView } from '../users/user.js';
import { LoginRequest, RefreshRequest, SignupRequest, TokenPair } from './auth.schemas.js';
import { AuthService } from './auth.service.js';

@ApiTags('auth')
@Controller('auth')
export class AuthController {
  constructor(private readonly auth: AuthService) {}

  @Post('signup')
  @Public()
  @Header('cache-control', 'no-store')
  @Answers(201, TokenPair, 'VALIDATION_FAILED', 'EMAIL_TAKEN', 'UNAVAILABLE')
  signup(@Body({ schema: SignupRequest }) body: SignupRequest): Promise<TokenPair> {
    return this.auth.signup(body);
  }

  @Post('login')
  @Public()
  @Header('cache-control', 'no-store')
  @Answers(200, TokenPair, 'VALIDATION_FAILED', 'INVALID_CREDENTIALS', 'ACCOUNT_SUSPENDED', 'UNAVAILABLE')
  login(@Body({ schema: LoginRequest }) body: LoginRequest): Promise<TokenPair> {
    return this.auth.login(body);
  }

  @Post('refresh')
  @Public()
  @Header('cache-control', 'no-store')
  @Answers(200, TokenPair, 'VALIDATION_FAILED', 'INVALID_REFRESH_TOKEN')
  refresh(@Body({ schema: RefreshRequest }) { refreshToken }: RefreshRequest): Promise<TokenPair> {
    return this.auth.refresh(refreshToken);
  }

  @Get('me')
  @LoginOnly()
  @Answers(200, UserView, 'UNAUTHENTICATED', 'LOGIN_REQUIRED')
  me(@CurrentLogin() { userId, ...account }: LoggedIn): UserView {
    return { id: userId, ...account };
  }
}
