import { Injectable } from '@nestjs/common';

import { PlatformError } from '../platform/errors/error-register.js';
import { cutPage, keyOfCursor, type Page } from '../platform/http/page.js';
import type { Caller } from '../platform/http/route-metadata.js';
import { type ClientSessionView, EpochText, type ListClientSessionsQuery } from './client-session.js';
import { ConnectionKeyText, type ConnectionView, keyOfConnection, type ListConnectionsQuery } from './connection.js';
import { LedgerRepository } from './ledger.repository.js';
import { TunnelsRepository } from './tunnels.repository.js';
import { bucketsOf, type UsageQuery, type UsageView, viewUsage } from './usage.js';

/** What crossed a tunnel, for its owner; of closed tunnels too, for as long as it is kept. */
@Injectable()
export class LedgerService {
  constructor(
    private readonly ledger: LedgerRepository,
    private readonly tunnels: TunnelsRepository,
  ) {}

  /** @throws PlatformError VALIDATION_FAILED, NOT_FOUND (also for a tunnel of somebody else) */
  async connections(caller: Caller, tunnelId: string, query: ListConnectionsQuery): Promise<Page<ConnectionView>> {
    const after = query.cursor === undefined ? undefined : keyOfCursor(query.cursor, ConnectionKeyText);
    await this.mustOwn(caller, tunnelId);
    const rows = await this.ledger.connections(tunnelId, query, after);
    return cutPage(rows, query.limit, keyOfConnection);
  }

  /** @throws PlatformError VALIDATION_FAILED, NOT_FOUND (also for a tunnel of somebody else) */
  async sessions(caller: Caller, tunnelId: string, query: ListClientSessionsQuery): Promise<Page<ClientSessionView>> {
    const before = query.cursor === undefined ? undefined : keyOfCursor(query.cursor, EpochText);
    await this.mustOwn(caller, tunnelId);
    const rows = await this.ledger.sessions(tunnelId, query, before);
    return cutPage(rows, query.limit, ({ epoch }) => String(epoch));
  }

  /** @throws PlatformError VALIDATION_FAILED, NOT_FOUND (also for a tunnel of somebody else) */
  async usage(caller: Caller, tunnelId: string, query: UsageQuery): Promise<UsageView> {
    const buckets = bucketsOf(query);
    await this.mustOwn(caller, tunnelId);
    return viewUsage(buckets, await this.ledger.usage(tunnelId, buckets));
  }

  private async mustOwn(caller: Caller, tunnelId: string): Promise<void> {
    if (!(await this.tunnels.find(tunnelId, caller.userId))) throw new PlatformError('NOT_FOUND');
  }
}
