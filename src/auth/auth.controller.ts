import { Body, Controller, Get, Header, Ip, Post } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';

import { Answers } from '../platform/http/answers.decorator.js';
import { CurrentLogin, type LoggedIn, LoginOnly, Public } from '../platform/http/route-metadata.js';
import { Limited } from '../platform/rate-limits/limited.decorator.js';
import { UserView } from '../users/user.js';
import { ChangePasswordRequest, LoginRequest, RefreshRequest, SignupRequest, TokenPair } from './auth.schemas.js';
import { AuthService } from './auth.service.js';
import { PasswordsService } from './passwords.service.js';

@ApiTags('auth')
@Controller('auth')
export class AuthController {
  constructor(
    private readonly auth: AuthService,
    private readonly passwords: PasswordsService,
  ) {}

  @Post('signup')
  @Public()
  @Limited('signup')
  @Header('cache-control', 'no-store')
  @Answers(201, TokenPair, 'EMAIL_TAKEN')
  signup(@Body({ schema: SignupRequest }) body: SignupRequest): Promise<TokenPair> {
    return this.auth.signup(body);
  }

  @Post('login')
  @Public()
  @Limited('login')
  @Header('cache-control', 'no-store')
  @Answers(200, TokenPair, 'INVALID_CREDENTIALS', 'ACCOUNT_SUSPENDED')
  login(@Body({ schema: LoginRequest }) body: LoginRequest, @Ip() ip: string): Promise<TokenPair> {
    return this.auth.login(body, ip);
  }

  @Post('refresh')
  @Public()
  @Limited('refresh')
  @Header('cache-control', 'no-store')
  @Answers(200, TokenPair, 'INVALID_REFRESH_TOKEN')
  refresh(@Body({ schema: RefreshRequest }) { refreshToken }: RefreshRequest): Promise<TokenPair> {
    return this.auth.refresh(refreshToken);
  }

  @Post('password')
  @LoginOnly()
  @Limited('password')
  @Answers(204, null, 'CURRENT_PASSWORD_WRONG')
  changePassword(
    @CurrentLogin() caller: LoggedIn,
    @Body({ schema: ChangePasswordRequest }) body: ChangePasswordRequest,
    @Ip() ip: string,
  ): Promise<void> {
    return this.passwords.change(caller, body, ip);
  }

  @Get('me')
  @LoginOnly()
  @Answers(200, UserView)
  me(@CurrentLogin() { userId, ...account }: LoggedIn): UserView {
    return { id: userId, ...account };
  }
}
