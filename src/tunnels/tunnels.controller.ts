import { Body, Controller, Delete, Get, Header, Param, Patch, Post, Query } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { z } from 'zod';

import { Answers } from '../platform/http/answers.decorator.js';
import { type Page, pageOf } from '../platform/http/page.js';
import { AccountOnly, type Caller, CurrentCaller } from '../platform/http/route-metadata.js';
import { ListTunnelsQuery, OpenedTunnel, OpenTunnelRequest, TunnelView, UpdateTunnelRequest } from './tunnel.js';
import { TunnelsService } from './tunnels.service.js';

@ApiTags('tunnels')
@Controller('tunnels')
export class TunnelsController {
  constructor(private readonly tunnels: TunnelsService) {}

  @Post()
  @AccountOnly('tunnels:write')
  @Header('cache-control', 'no-store')
  @Answers(
    201,
    OpenedTunnel,
    'VALIDATION_FAILED',
    'UNAUTHENTICATED',
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
  ): Promise<OpenedTunnel> {
    return this.tunnels.open(caller, body);
  }

  @Get()
  @AccountOnly('tunnels:read')
  @Answers(200, pageOf(TunnelView), 'VALIDATION_FAILED', 'UNAUTHENTICATED')
  list(
    @CurrentCaller() caller: Caller,
    @Query({ schema: ListTunnelsQuery }) query: ListTunnelsQuery,
  ): Promise<Page<TunnelView>> {
    return this.tunnels.list(caller, query);
  }

  @Get(':id')
  @AccountOnly('tunnels:read')
  @Answers(200, TunnelView, 'VALIDATION_FAILED', 'UNAUTHENTICATED', 'NOT_FOUND')
  get(@CurrentCaller() caller: Caller, @Param('id', { schema: z.guid() }) id: string): Promise<TunnelView> {
    return this.tunnels.get(caller, id);
  }

  @Patch(':id')
  @AccountOnly('tunnels:write')
  @Answers(200, TunnelView, 'VALIDATION_FAILED', 'UNAUTHENTICATED', 'NOT_FOUND', 'NAME_TAKEN', 'TUNNEL_CLOSED')
  update(
    @CurrentCaller() caller: Caller,
    @Param('id', { schema: z.guid() }) id: string,
    @Body({ schema: UpdateTunnelRequest }) body: UpdateTunnelRequest,
  ): Promise<TunnelView> {
    return this.tunnels.update(caller, id, body);
  }

  @Delete(':id')
  @AccountOnly('tunnels:write')
  @Answers(204, null, 'VALIDATION_FAILED', 'UNAUTHENTICATED', 'NOT_FOUND')
  close(@CurrentCaller() caller: Caller, @Param('id', { schema: z.guid() }) id: string): Promise<void> {
    return this.tunnels.close(caller, id);
  }
}
