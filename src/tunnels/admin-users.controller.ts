import { Body, Controller, Get, Param, Patch, Query, Res } from '@nestjs/common';
import { ApiHeader, ApiTags } from '@nestjs/swagger';
import type { FastifyReply } from 'fastify';
import { z } from 'zod';

import { Answers } from '../platform/http/answers.decorator.js';
import { IfMatch, tagged } from '../platform/http/if-match.js';
import { type Page, pageOf } from '../platform/http/page.js';
import { AdminOnly, type Caller, CurrentCaller } from '../platform/http/route-metadata.js';
import { AdminUserView, ListUsersQuery, UpdateUserRequest } from '../users/admin-user.js';
import { AdministrationService } from './administration.service.js';

@ApiTags('admin')
@Controller('admin/users')
export class AdminUsersController {
  constructor(private readonly administration: AdministrationService) {}

  @Get()
  @AdminOnly('admin:read')
  @Answers(200, pageOf(AdminUserView), 'VALIDATION_FAILED', 'UNAUTHENTICATED', 'FORBIDDEN')
  list(@Query({ schema: ListUsersQuery }) query: ListUsersQuery): Promise<Page<AdminUserView>> {
    return this.administration.listUsers(query);
  }

  @Get(':id')
  @AdminOnly('admin:read')
  @Answers(200, AdminUserView, 'VALIDATION_FAILED', 'UNAUTHENTICATED', 'FORBIDDEN', 'NOT_FOUND')
  async get(
    @Param('id', { schema: z.guid() }) id: string,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<AdminUserView> {
    return tagged(reply, await this.administration.getUser(id));
  }

  @Patch(':id')
  @AdminOnly('admin:write')
  @ApiHeader({ name: 'If-Match', required: false, description: 'ETag of what the change is based on' })
  @Answers(
    200,
    AdminUserView,
    'VALIDATION_FAILED',
    'UNAUTHENTICATED',
    'FORBIDDEN',
    'NOT_FOUND',
    'OWN_ACCOUNT',
    'PRECONDITION_FAILED',
  )
  async update(
    @CurrentCaller() caller: Caller,
    @Param('id', { schema: z.guid() }) id: string,
    @IfMatch() version: number | null,
    @Body({ schema: UpdateUserRequest }) body: UpdateUserRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<AdminUserView> {
    return tagged(reply, await this.administration.updateUser(caller, id, version, body));
  }
}
