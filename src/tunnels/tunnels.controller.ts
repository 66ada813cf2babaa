import { Body, Controller, Delete, Get, Header, Param, Patch, Post, Query } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';

import { Answers } from '../platform/http/answers.decorator.js';
import { Conditional, IfMatch, type SeenVersions, Tagged, type Versioned } from '../platform/http/etag.js';
import { type Page, pageOf } from '../platform/http/page.js';
import { ResourceId } from '../platform/http/resource-id.js';
import { AccountOnly, type Caller, CurrentCaller } from '../platform/http/route-metadata.js';
import type { NewResource } from '../platform/idempotency/idempotency-keys.repository.js';
import { CurrentNewResource, Idempotent } from '../platform/idempotency/idempotent.js';
import { OpenedTunnel, OpenTunnelRequest, TunnelView, UpdateTunnelRequest } from './tunnel.js';
import { ListTunnelsQuery } from './tunnel-list.js';
import { TunnelsService } from './tunnels.service.js';

@ApiTags('tunnels')
@Controller('tunnels')
export class TunnelsController {
  constructor(private readonly tunnels: TunnelsService) {}

  @Post()
  @AccountOnly('tunnels:write')
  @Idempotent()
  @Header('cache-control', 'no-store')
  @Answers(
    201,
    OpenedTunnel,
    'ACCOUNT_SUSPENDED',
    'NAME_TAKEN',
    'PORT_TAKEN',
    'PORT_OUT_OF_RANGE',
    'QUOTA_EXCEEDED',
    'NO_CAPACITY',
  )
  open(
    @CurrentCaller() caller: Caller,
    @Body({ schema: OpenTunnelRequest }) body: OpenTunnelRequest,
    @CurrentNewResource() resource: NewResource,
  ): Promise<OpenedTunnel> {
    return this.tunnels.open(caller, body, resource);
  }

  @Get()
  @AccountOnly('tunnels:read')
  @Answers(200, pageOf(TunnelView))
  list(
    @CurrentCaller() caller: Caller,
    @Query({ schema: ListTunnelsQuery }) query: ListTunnelsQuery,
  ): Promise<Page<TunnelView>> {
    return this.tunnels.list(caller, query);
  }

  @Get(':id')
  @AccountOnly('tunnels:read')
  @Tagged()
  @Answers(200, TunnelView, 'NOT_FOUND')
  get(
    @CurrentCaller() caller: Caller,
    @Param('id', { schema: ResourceId }) id: string,
  ): Promise<Versioned<TunnelView>> {
    return this.tunnels.get(caller, id);
  }

  @Patch(':id')
  @AccountOnly('tunnels:write')
  @Tagged()
  @Conditional()
  @Answers(200, TunnelView, 'NOT_FOUND', 'NAME_TAKEN', 'TUNNEL_CLOSED')
  update(
    @CurrentCaller() caller: Caller,
    @Param('id', { schema: ResourceId }) id: string,
    @Body({ schema: UpdateTunnelRequest }) body: UpdateTunnelRequest,
    @IfMatch() versions: SeenVersions,
  ): Promise<Versioned<TunnelView>> {
    return this.tunnels.update(caller, id, body, versions);
  }

  @Delete(':id')
  @AccountOnly('tunnels:write')
  @Conditional()
  @Answers(204, null, 'NOT_FOUND')
  close(
    @CurrentCaller() caller: Caller,
    @Param('id', { schema: ResourceId }) id: string,
    @IfMatch() versions: SeenVersions,
  ): Promise<void> {
    return this.tunnels.close(caller, id, versions);
  }

  @Post(':id/token')
  @AccountOnly('tunnels:write')
  @Header('cache-control', 'no-store')
  @Answers(200, OpenedTunnel, 'NOT_FOUND', 'TUNNEL_CLOSED')
  rotateToken(@CurrentCaller() caller: Caller, @Param('id', { schema: ResourceId }) id: string): Promise<OpenedTunnel> {
    return this.tunnels.rotateToken(caller, id);
  }

  @Post(':id/disconnect')
  @AccountOnly('tunnels:write')
  @Answers(204, null, 'NOT_FOUND')
  disconnect(@CurrentCaller() caller: Caller, @Param('id', { schema: ResourceId }) id: string): Promise<void> {
    return this.tunnels.disconnect(caller, id);
  }
}
