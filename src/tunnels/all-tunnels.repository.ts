import { Injectable } from '@nestjs/common';

import { Database } from '../platform/database/database.js';
import type { ListAdminTunnelsQuery, OwnedTunnel } from './admin-tunnel.js';

const WITH_SERVER_AND_OWNER = {
  server: { select: { host: true, port: true, location: true, adminUrl: true } },
  user: { select: { email: true } },
} as const;

/** Tunnels of all users, as administrators look through them. */
@Injectable()
export class AllTunnelsRepository {
  constructor(private readonly database: Database) {}

  find(id: string): Promise<OwnedTunnel | null> {
    return this.database.tunnel.findUnique({ where: { id }, include: WITH_SERVER_AND_OWNER });
  }

  /** One more than the page holds, by age (ids are UUIDv7), beginning behind `after`. */
  list(query: ListAdminTunnelsQuery, after: string | undefined): Promise<OwnedTunnel[]> {
    const { state, userId, serverId, port, since, sort, limit } = query;
    const ascending = sort === 'createdAt';
    return this.database.read((reader) =>
      reader.tunnel.findMany({
        where: {
          ...(after !== undefined && { id: ascending ? { gt: after } : { lt: after } }),
          ...(state === 'open' && { state: { not: 'closed' } }),
          ...(state !== 'open' && state !== 'all' && { state }),
          ...(userId !== undefined && { userId }),
          ...(serverId !== undefined && { serverId }),
          ...(port !== undefined && { port }),
          ...(since !== undefined && { createdAt: { gte: since } }),
        },
        orderBy: { id: ascending ? 'asc' : 'desc' },
        take: limit + 1,
        include: WITH_SERVER_AND_OWNER,
      }),
    );
  }
}
