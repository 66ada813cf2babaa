import { Controller, Get, Param, Query } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';

import { Answers } from '../platform/http/answers.decorator.js';
import { type Page, pageOf } from '../platform/http/page.js';
import { ResourceId } from '../platform/http/resource-id.js';
import { AccountOnly, type Caller, CurrentCaller } from '../platform/http/route-metadata.js';
import { ClientSessionView, ListClientSessionsQuery } from './client-session.js';
import { ConnectionView, ListConnectionsQuery } from './connection.js';
import { LedgerService } from './ledger.service.js';
import { UsageQuery, UsageView } from './usage.js';

@ApiTags('tunnels')
@Controller('tunnels/:id')
export class LedgerController {
  constructor(private readonly ledger: LedgerService) {}

  @Get('connections')
  @AccountOnly('usage:read')
  @Answers(200, pageOf(ConnectionView), 'NOT_FOUND')
  connections(
    @CurrentCaller() caller: Caller,
    @Param('id', { schema: ResourceId }) id: string,
    @Query({ schema: ListConnectionsQuery }) query: ListConnectionsQuery,
  ): Promise<Page<ConnectionView>> {
    return this.ledger.connections(caller, id, query);
  }

  @Get('sessions')
  @AccountOnly('usage:read')
  @Answers(200, pageOf(ClientSessionView), 'NOT_FOUND')
  sessions(
    @CurrentCaller() caller: Caller,
    @Param('id', { schema: ResourceId }) id: string,
    @Query({ schema: ListClientSessionsQuery }) query: ListClientSessionsQuery,
  ): Promise<Page<ClientSessionView>> {
    return this.ledger.sessions(caller, id, query);
  }

  @Get('usage')
  @AccountOnly('usage:read')
  @Answers(200, UsageView, 'NOT_FOUND')
  usage(
    @CurrentCaller() caller: Caller,
    @Param('id', { schema: ResourceId }) id: string,
    @Query({ schema: UsageQuery }) query: UsageQuery,
  ): Promise<UsageView> {
    return this.ledger.usage(caller, id, query);
  }
}
