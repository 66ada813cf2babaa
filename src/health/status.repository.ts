import { Injectable } from '@nestjs/common';
import { z } from 'zod';

import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import type { LocationCount } from './status.js';

/** More than any fleet has; a status page shows the first by name. */
const LOCATIONS_MAX = 100;
/** Jobs run every few seconds: what they have not done after this time, nobody does. */
const OVERDUE_SECONDS = 120;

const Location = z.object({ location: z.string(), servers: z.int(), alive: z.int() });
const Overdue = z.object({ overdue: z.boolean() });

/** What the status of the whole is made of. */
@Injectable()
export class StatusRepository {
  constructor(private readonly database: Database) {}

  /** Of servers that have ever been there and that nobody has taken out. */
  locations(): Promise<LocationCount[]> {
    return this.database.rows(
      Location,
      Prisma.sql`
        SELECT location, count(*)::int AS servers, count(*) FILTER (WHERE lease_until > now())::int AS alive
        FROM servers WHERE deleted_at IS NULL AND state <> 'disabled' AND instance_id IS NOT NULL
        GROUP BY location ORDER BY location LIMIT ${LOCATIONS_MAX}`,
    );
  }

  /** Whether a lease or a tunnel has ended by time alone, and nobody has noticed. */
  async overdue(): Promise<boolean> {
    const before = Prisma.sql`now() - make_interval(secs => ${OVERDUE_SECONDS}::int)`;
    const [row] = await this.database.rows(
      Overdue,
      Prisma.sql`
        SELECT EXISTS (SELECT FROM servers WHERE state IN ('online', 'draining') AND lease_until < ${before})
          OR EXISTS (SELECT FROM tunnels WHERE idle_deadline < ${before} AND state <> 'closed') AS overdue`,
    );
    return row?.overdue ?? false;
  }
}
