import { Body, Controller, Get, Param, Patch, Query } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';

import { Answers } from '../platform/http/answers.decorator.js';
import { Conditional, IfMatch, type SeenVersions, Tagged, type Versioned, versioned } from '../platform/http/etag.js';
import { type Page, pageOf } from '../platform/http/page.js';
import { ResourceId } from '../platform/http/resource-id.js';
import { AdminOnly, type Caller, CurrentCaller } from '../platform/http/route-metadata.js';
import { AdminUserView, ListUsersQuery, UpdateUserRequest } from '../users/admin-user.js';
import { AdministrationService } from './administration.service.js';

@ApiTags('admin')
@Controller('admin/users')
export class AdminUsersController {
  constructor(private readonly administration: AdministrationService) {}

  @Get()
  @AdminOnly('admin:read')
  @Answers(200, pageOf(AdminUserView))
  list(@Query({ schema: ListUsersQuery }) query: ListUsersQuery): Promise<Page<AdminUserView>> {
    return this.administration.listUsers(query);
  }

  @Get(':id')
  @AdminOnly('admin:read')
  @Tagged()
  @Answers(200, AdminUserView, 'NOT_FOUND')
  async get(@Param('id', { schema: ResourceId }) id: string): Promise<Versioned<AdminUserView>> {
    return versioned(await this.administration.getUser(id));
  }

  @Patch(':id')
  @AdminOnly('admin:write')
  @Conditional()
  @Tagged()
  @Answers(200, AdminUserView, 'NOT_FOUND', 'OWN_ACCOUNT')
  async update(
    @CurrentCaller() caller: Caller,
    @Param('id', { schema: ResourceId }) id: string,
    @IfMatch() versions: SeenVersions,
    @Body({ schema: UpdateUserRequest }) body: UpdateUserRequest,
  ): Promise<Versioned<AdminUserView>> {
    return versioned(await this.administration.updateUser(caller, id, versions, body));
  }
}
