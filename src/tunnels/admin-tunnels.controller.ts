import { Body, Controller, Delete, Get, Param, Post, Query } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';

import { Answers } from '../platform/http/answers.decorator.js';
import { type Page, pageOf } from '../platform/http/page.js';
import { ResourceId } from '../platform/http/resource-id.js';
import { AdminOnly, type Caller, CurrentCaller } from '../platform/http/route-metadata.js';
import { AdminTunnelView, ListAdminTunnelsQuery, SuspendTunnelRequest } from './admin-tunnel.js';
import { AdministrationService } from './administration.service.js';

@ApiTags('admin')
@Controller('admin/tunnels')
export class AdminTunnelsController {
  constructor(private readonly administration: AdministrationService) {}

  @Get()
  @AdminOnly('admin:read')
  @Answers(200, pageOf(AdminTunnelView))
  list(@Query({ schema: ListAdminTunnelsQuery }) query: ListAdminTunnelsQuery): Promise<Page<AdminTunnelView>> {
    return this.administration.listTunnels(query);
  }

  @Get(':id')
  @AdminOnly('admin:read')
  @Answers(200, AdminTunnelView, 'NOT_FOUND')
  get(@Param('id', { schema: ResourceId }) id: string): Promise<AdminTunnelView> {
    return this.administration.getTunnel(id);
  }

  @Delete(':id')
  @AdminOnly('admin:write')
  @Answers(204, null, 'NOT_FOUND')
  close(@CurrentCaller() caller: Caller, @Param('id', { schema: ResourceId }) id: string): Promise<void> {
    return this.administration.closeTunnel(caller, id);
  }

  @Post(':id/suspend')
  @AdminOnly('admin:write')
  @Answers(200, AdminTunnelView, 'NOT_FOUND', 'OWN_ACCOUNT', 'TUNNEL_CLOSED')
  suspend(
    @CurrentCaller() caller: Caller,
    @Param('id', { schema: ResourceId }) id: string,
    @Body({ schema: SuspendTunnelRequest }) body: SuspendTunnelRequest,
  ): Promise<AdminTunnelView> {
    return this.administration.suspendTunnel(caller, id, body);
  }
}
