import { Inject, Injectable } from '@nestjs/common';
import { z } from 'zod';

import { CONFIG, type Config } from '../platform/config/config.js';
import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';

const Totals = z.object({
  capacity: z.coerce.number().int(),
  total: z.coerce.number().int(),
  open: z.coerce.number().int(),
});
const LocationRow = z.object({ location: z.string(), servers: z.int(), free: z.coerce.number().int() });

/** Slots over all bore-servers, counted by the database. */
@Injectable()
export class CapacityRepository {
  constructor(
    private readonly database: Database,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  /** `total` is with the reserved share, `capacity` without it. */
  async totals(): Promise<z.infer<typeof Totals>> {
    const total = this.config.TOTAL_SYSTEM_CAPACITY ?? null;
    const [row] = await this.database.rows(
      Totals,
      Prisma.sql`
        SELECT system_capacity(${total}::int, ${this.config.RESERVED_CAPACITY_PERCENT}::int) AS capacity,
               system_capacity(${total}::int, 0) AS total,
               (SELECT coalesce(sum(open_tunnels), 0) FROM servers) AS open`,
    );
    if (!row) throw new Error('an aggregate returned no row');
    return row;
  }

  /** Free slots of the servers that take new tunnels and are not to be avoided. At most one row for each location in use. */
  locations(avoid: readonly string[]): Promise<z.infer<typeof LocationRow>[]> {
    return this.database.rows(
      LocationRow,
      Prisma.sql`
        SELECT location, count(*)::int AS servers, sum(greatest(max_tunnels - open_tunnels, 0)) AS free
        FROM servers WHERE state = 'online' AND lease_until > now() AND NOT id = ANY (${[...avoid]}::text[]) GROUP BY location ORDER BY location`,
    );
  }
}
