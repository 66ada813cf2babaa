import { Body, Controller, Delete, Get, Param, Patch, Post, Query, Res } from '@nestjs/common';
import { ApiHeader, ApiTags } from '@nestjs/swagger';
import type { FastifyReply } from 'fastify';

import { Answers } from '../platform/http/answers.decorator.js';
import { IfMatch, tagged } from '../platform/http/if-match.js';
import { type Page, pageOf } from '../platform/http/page.js';
import { AdminOnly } from '../platform/http/route-metadata.js';
import { CurrentNewResource, Idempotent } from '../platform/idempotency/idempotent.js';
import type { NewResource } from '../platform/idempotency/idempotency-keys.repository.js';
import { ServerId } from '../protocol/plane-api.js';
import { CreateServerRequest, ListServersQuery, ServerView, UpdateServerRequest } from './server.js';
import { ServersService } from './servers.service.js';

@ApiTags('admin')
@Controller('admin/servers')
export class AdminServersController {
  constructor(private readonly servers: ServersService) {}

  @Post()
  @AdminOnly('admin:write')
  @Idempotent()
  @Answers(
    201,
    ServerView,
    'VALIDATION_FAILED',
    'UNAUTHENTICATED',
    'FORBIDDEN',
    'SERVER_EXISTS',
    'IDEMPOTENCY_KEY_IN_USE',
    'IDEMPOTENCY_KEY_REUSED',
  )
  create(
    @Body({ schema: CreateServerRequest }) body: CreateServerRequest,
    @CurrentNewResource() { id }: NewResource,
  ): Promise<ServerView> {
    return this.servers.create(body, id);
  }

  @Get()
  @AdminOnly('admin:read')
  @Answers(200, pageOf(ServerView), 'VALIDATION_FAILED', 'UNAUTHENTICATED', 'FORBIDDEN')
  list(@Query({ schema: ListServersQuery }) query: ListServersQuery): Promise<Page<ServerView>> {
    return this.servers.list(query);
  }

  @Get(':id')
  @AdminOnly('admin:read')
  @Answers(200, ServerView, 'VALIDATION_FAILED', 'UNAUTHENTICATED', 'FORBIDDEN', 'NOT_FOUND')
  async get(
    @Param('id', { schema: ServerId }) id: string,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<ServerView> {
    return tagged(reply, await this.servers.get(id));
  }

  @Patch(':id')
  @AdminOnly('admin:write')
  @ApiHeader({ name: 'If-Match', required: false, description: 'ETag of what the change is based on' })
  @Answers(200, ServerView, 'VALIDATION_FAILED', 'UNAUTHENTICATED', 'FORBIDDEN', 'NOT_FOUND', 'PRECONDITION_FAILED')
  async update(
    @Param('id', { schema: ServerId }) id: string,
    @IfMatch() version: number | null,
    @Body({ schema: UpdateServerRequest }) body: UpdateServerRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<ServerView> {
    return tagged(reply, await this.servers.update(id, version, body));
  }

  @Delete(':id')
  @AdminOnly('admin:write')
  @Answers(204, null, 'VALIDATION_FAILED', 'UNAUTHENTICATED', 'FORBIDDEN', 'NOT_FOUND', 'SERVER_IN_USE')
  delete(@Param('id', { schema: ServerId }) id: string): Promise<void> {
    return this.servers.delete(id);
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
