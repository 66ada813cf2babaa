import { Body, Controller, Delete, Get, Param, Patch, Post, Query } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';

import { Answers } from '../platform/http/answers.decorator.js';
import { Conditional, IfMatch, type SeenVersions, Tagged, type Versioned, versioned } from '../platform/http/etag.js';
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
  @Answers(201, ServerView, 'SERVER_EXISTS')
  create(
    @Body({ schema: CreateServerRequest }) body: CreateServerRequest,
    @CurrentNewResource() { id }: NewResource,
  ): Promise<ServerView> {
    return this.servers.create(body, id);
  }

  @Get()
  @AdminOnly('admin:read')
  @Answers(200, pageOf(ServerView))
  list(@Query({ schema: ListServersQuery }) query: ListServersQuery): Promise<Page<ServerView>> {
    return this.servers.list(query);
  }

  @Get(':id')
  @AdminOnly('admin:read')
  @Tagged()
  @Answers(200, ServerView, 'NOT_FOUND')
  async get(@Param('id', { schema: ServerId }) id: string): Promise<Versioned<ServerView>> {
    return versioned(await this.servers.get(id));
  }

  @Patch(':id')
  @AdminOnly('admin:write')
  @Conditional()
  @Tagged()
  @Answers(200, ServerView, 'NOT_FOUND', 'PORT_RANGE_TAKEN')
  async update(
    @Param('id', { schema: ServerId }) id: string,
    @IfMatch() versions: SeenVersions,
    @Body({ schema: UpdateServerRequest }) body: UpdateServerRequest,
  ): Promise<Versioned<ServerView>> {
    return versioned(await this.servers.update(id, versions, body));
  }

  @Delete(':id')
  @AdminOnly('admin:write')
  @Answers(204, null, 'NOT_FOUND', 'SERVER_IN_USE')
  delete(@Param('id', { schema: ServerId }) id: string): Promise<void> {
    return this.servers.delete(id);
  }

  @Post(':id/drain')
  @AdminOnly('admin:write')
  @Answers(200, ServerView, 'NOT_FOUND')
  drain(@Param('id', { schema: ServerId }) id: string): Promise<ServerView> {
    return this.servers.drain(id, true);
  }

  @Post(':id/undrain')
  @AdminOnly('admin:write')
  @Answers(200, ServerView, 'NOT_FOUND')
  undrain(@Param('id', { schema: ServerId }) id: string): Promise<ServerView> {
    return this.servers.drain(id, false);
  }
}
