import { Injectable } from '@nestjs/common';

import { PlatformError } from '../platform/errors/error-register.js';
import { cutPage, keyOfCursor, type Page } from '../platform/http/page.js';
import type { Caller } from '../platform/http/route-metadata.js';
import { EventKeyText, type EventView, type ListEventsQuery } from './event.js';
import { EventsRepository } from './events.repository.js';

/** What happened to a user's tunnels. */
@Injectable()
export class EventsService {
  constructor(private readonly events: EventsRepository) {}

  /** @throws PlatformError VALIDATION_FAILED, NOT_FOUND (also for a tunnel of somebody else) */
  async list(caller: Caller, tunnelId: string, { limit, cursor }: ListEventsQuery): Promise<Page<EventView>> {
    const before = cursor === undefined ? undefined : keyOfCursor(cursor, EventKeyText);
    await this.mustOwn(caller, tunnelId);
    return cutPage(await this.events.list(tunnelId, caller.userId, before, limit + 1), limit);
  }

  /** @throws PlatformError NOT_FOUND, also for a tunnel of somebody else */
  async mustOwn(caller: Caller, tunnelId: string): Promise<void> {
    if (!(await this.events.isOwner(caller.userId, tunnelId))) throw new PlatformError('NOT_FOUND');
  }
}
