import { Controller, Delete, Get, Param, Post, Query } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';

import { Answers } from '../platform/http/answers.decorator.js';
import { type Page, PageQuery } from '../platform/http/page.js';
import { ResourceId } from '../platform/http/resource-id.js';
import { CurrentLogin, type LoggedIn, LoginOnly } from '../platform/http/route-metadata.js';
import { SessionPage, type SessionView } from './session.js';
import { SessionsService } from './sessions.service.js';

@ApiTags('auth')
@Controller('auth')
export class SessionsController {
  constructor(private readonly sessions: SessionsService) {}

  @Post('logout')
  @LoginOnly()
  @Answers(204, null)
  logout(@CurrentLogin() caller: LoggedIn): Promise<void> {
    return this.sessions.logout(caller);
  }

  @Post('logout-all')
  @LoginOnly()
  @Answers(204, null)
  logoutAll(@CurrentLogin() caller: LoggedIn): Promise<void> {
    return this.sessions.logoutAll(caller);
  }

  @Get('sessions')
  @LoginOnly()
  @Answers(200, SessionPage)
  list(@CurrentLogin() caller: LoggedIn, @Query({ schema: PageQuery }) query: PageQuery): Promise<Page<SessionView>> {
    return this.sessions.list(caller, query);
  }

  @Delete('sessions/:id')
  @LoginOnly()
  @Answers(204, null, 'NOT_FOUND')
  end(@CurrentLogin() caller: LoggedIn, @Param('id', { schema: ResourceId }) id: string): Promise<void> {
    return this.sessions.end(caller, id);
  }
}
