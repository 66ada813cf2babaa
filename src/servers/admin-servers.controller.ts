import { Body, Controller, Get, Param, Post, Query } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';

import { Answers } from '../platform/http/answers.decorator.js';
import { type Page, PageQuery, pageOf } from '../platform/http/page.js';
import { AdminOnly } from '../platform/http/route-metadata.js';
import { ServerId } from '../protocol/plane-api.js';
import { CreateServerRequest, ServerView } from './server.js';
import { ServersService } from './servers.service.js';

@ApiTags('admin')
@Controller('admin/servers')
export class AdminServersController {
  constructor(private readonly servers: ServersService) {}

  @Post()
  @AdminOnly('admin:write')
  @Answers(201, ServerView, 'VALIDATION_FAILED', 'UNAUTHENTICATED', 'FORBIDDEN', 'SERVER_EXISTS')
  create(@Body({ schema: CreateServerRequest }) body: CreateServerRequest): Promise<ServerView> {
    return this.servers.create(body);
  }

  @Get()
  @AdminOnly('admin:read')
  @Answers(200, pageOf(ServerView), 'VALIDATION_FAILED', 'UNAUTHENTICATED', 'FORBIDDEN')
  list(@Query({ schema: PageQuery }) query: PageQuery): Promise<Page<ServerView>> {
    return this.servers.list(query);
  }

  @Get(':id')
  @AdminOnly('admin:read')
  @Answers(200, ServerView, 'VALIDATION_FAILED', 'UNAUTHENTICATED', 'FORBIDDEN', 'NOT_FOUND')
  get(@Param('id', { schema: ServerId }) id: string): Promise<ServerView> {
    return this.servers.get(id);
  }

  @Post(':id/drain')
  @AdminOnly('admin:write')
  @Answers(200, ServerView, 'VALIDATION_FAILED', 'UNAUTHENTICATED', 'FORBIDDEN', 'NOT_FOUND')
  drain(@Param('id', { schema: ServerId }) id: string): Promise<ServerView> {
    return this.servers.drain(id, true);
  }

  @Post(':id/undrain')
  @AdminOnly('admin:write')
  @Answers(200, ServerView, 'VALIDATION_FAILED', 'UNAUTHENTICATED', 'FORBIDDEN', 'NOT_FOUND')
  undrain(@Param('id', { schema: ServerId }) id: string): Promise<ServerView> {
    return this.servers.drain(id, false);
  }
}
