import { Inject, Injectable } from '@nestjs/common';
import { z } from 'zod';

import { auditInsert } from '../audit/audit-log.repository.js';
import { CONFIG, type Config } from '../platform/config/config.js';
import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';

const Relocation = z.object({
  tunnelId: z.guid(),
  fromServer: z.string(),
  fromPort: z.int(),
  toServer: z.string(),
  toPort: z.int(),
});
/** A tunnel that has just been moved off a lost server. */
export type Relocation = z.infer<typeof Relocation>;

/** Moves of tunnels between servers. */
@Injectable()
export class RelocationsRepository {
  constructor(
    private readonly database: Database,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  /**
   * Places tunnels of servers that have been lost for SERVER_LOST_GRACE anew (prisma/migrations, relocate_tunnels).
   * @param avoid servers that cannot be reached now
   * @param limit tunnels at most: admissions wait meanwhile
   */
  relocate(avoid: readonly string[], limit: number): Promise<Relocation[]> {
    const { SERVER_LOST_GRACE, OFFLINE_TUNNEL_SECONDS } = this.config;
    return this.database.rows(
      Relocation,
      Prisma.sql`
        WITH moved AS MATERIALIZED (
          SELECT * FROM relocate_tunnels(${SERVER_LOST_GRACE}::int, ${OFFLINE_TUNNEL_SECONDS}::int, ${[...avoid]}::text[], ${limit}::int)),
        audited AS (${auditInsert(
          {
            action: 'tunnel.relocated',
            target: { type: 'tunnel', id: Prisma.sql`tunnel_id` },
            userId: Prisma.sql`owner_id`,
            details: Prisma.sql`jsonb_build_object('fromServerId', from_server, 'fromPort', from_port, 'serverId', to_server, 'port', to_port)`,
          },
          Prisma.sql`moved`,
        )})
        SELECT tunnel_id AS "tunnelId", from_server AS "fromServer", from_port AS "fromPort",
          to_server AS "toServer", to_port AS "toPort" FROM moved`,
    );
  }
}
