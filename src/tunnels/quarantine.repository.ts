import { Injectable } from '@nestjs/common';

import { auditInsert } from '../audit/audit-log.repository.js';
import { Database } from '../platform/database/database.js';
import { Prisma, type QuarantinedPort } from '../platform/database/generated/client.js';
import type { ListQuarantineQuery, PortKey } from './quarantine.js';

/** Public ports in quarantine. They get there by close_tunnels; that nobody gets one is a trigger's care (prisma/migrations). */
@Injectable()
export class QuarantineRepository {
  constructor(private readonly database: Database) {}

  /** One more than the page holds, by server and port, beginning behind `after`. */
  list({ limit, serverId, userId }: ListQuarantineQuery, after: PortKey | undefined): Promise<QuarantinedPort[]> {
    return this.database.read((reader) =>
      reader.quarantinedPort.findMany({
        where: {
          until: { gt: new Date() },
          ...(serverId !== undefined && { serverId }),
          ...(userId !== undefined && { userId }),
          ...(after && {
            OR: [{ serverId: { gt: after.serverId } }, { serverId: after.serverId, port: { gt: after.port } }],
          }),
        },
        orderBy: [{ serverId: 'asc' }, { port: 'asc' }],
        take: limit + 1,
      }),
    );
  }

  /** Ends a quarantine before its time; false when there is none. */
  async lift({ serverId, port }: PortKey): Promise<boolean> {
    const audit = auditInsert(
      {
        action: 'port.released',
        target: { type: 'server', id: serverId },
        userId: Prisma.sql`user_id`,
        details: Prisma.sql`jsonb_build_object('port', port, 'until', until, 'reason', reason)`,
      },
      Prisma.sql`lifted`,
    );
    const lifted = await this.database.$executeRaw`
      WITH lifted AS (
        DELETE FROM port_quarantine WHERE server_id = ${serverId} AND port = ${port}::int AND until > now() RETURNING *)
      ${audit}`;
    return lifted > 0;
  }

  /** Deletes quarantines that have ended, at most `limit`; returns how many. */
  forgetEnded(limit: number): Promise<number> {
    return this.database.$executeRaw`
      DELETE FROM port_quarantine WHERE (server_id, port) IN (
        SELECT server_id, port FROM port_quarantine WHERE until < now() LIMIT ${limit} FOR UPDATE SKIP LOCKED)`;
  }
}
