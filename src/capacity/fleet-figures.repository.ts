import { Inject, Injectable } from '@nestjs/common';
import { z } from 'zod';

import { CONFIG, type Config } from '../platform/config/config.js';
import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import { FleetFigures, LOCATIONS_MEASURED_MAX, SERVERS_MEASURED_MAX } from './fleet-figures.js';

const Measured = z.object({ figures: FleetFigures, ageSeconds: z.number() });
/** Figures, and how old they are by the database's clock. */
export type MeasuredFleet = z.infer<typeof Measured>;

/** How full the fleet is, measured now and then by one backend and read by all. */
@Injectable()
export class FleetFiguresRepository {
  constructor(
    private readonly database: Database,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  /** Counts servers and open tunnels, and writes down what it found: in one statement, so that the figures fit each other. */
  async measure(): Promise<void> {
    const count = (state: string) => Prisma.sql`count(*) FILTER (WHERE state = ${state})`;
    await this.database.$executeRaw`
      WITH fleet AS MATERIALIZED (
        SELECT id, location, max_tunnels, open_tunnels,
          CASE WHEN state <> 'disabled' AND (lease_until IS NULL OR lease_until <= now()) THEN 'offline' ELSE state::text END AS state
        FROM servers WHERE deleted_at IS NULL),
      -- closed tunnels are history: counting them would cost more with every day
      open AS (SELECT state::text FROM tunnels WHERE state <> 'closed'),
      -- as system_capacity counts: what is open on a server that takes no new tunnels is capacity in use
      places AS (
        SELECT location, sum(open_tunnels) AS open, sum(CASE WHEN state = 'online' THEN max_tunnels ELSE open_tunnels END) AS capacity
        FROM fleet WHERE state <> 'disabled' GROUP BY location),
      ranked AS (SELECT *, row_number() OVER (ORDER BY capacity DESC, location) AS place FROM places),
      shown AS (
        SELECT CASE WHEN place <= ${LOCATIONS_MEASURED_MAX}::int THEN location ELSE 'other' END AS location, sum(open) AS open,
          sum(capacity) AS capacity FROM ranked GROUP BY 1),
      first AS (SELECT * FROM fleet WHERE state <> 'disabled' ORDER BY id LIMIT ${SERVERS_MEASURED_MAX}::int)
      INSERT INTO fleet_figures AS f (id, measured_at, figures)
      SELECT 1, clock_timestamp(), jsonb_build_object(
        'tunnels', (SELECT jsonb_build_object('pending', ${count('pending')}, 'active', ${count('active')},
          'offline', ${count('offline')}) FROM open),
        'servers', (SELECT jsonb_build_object('online', ${count('online')}, 'draining', ${count('draining')},
          'offline', ${count('offline')}, 'disabled', ${count('disabled')}) FROM fleet),
        'open', (SELECT coalesce(sum(open_tunnels), 0) FROM servers),
        'total', system_capacity(${this.config.TOTAL_SYSTEM_CAPACITY ?? null}::int, 0),
        'perServer', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', id, 'open', open_tunnels, 'capacity', max_tunnels)), '[]') FROM first),
        'perLocation', (SELECT coalesce(jsonb_agg(to_jsonb(shown)), '[]') FROM shown))
      -- what was measured before is not written over what was after; nor waited for, when a clock was ahead and was put right
      ON CONFLICT (id) DO UPDATE SET measured_at = excluded.measured_at, figures = excluded.figures
      WHERE f.measured_at < excluded.measured_at OR f.measured_at > clock_timestamp()`;
  }

  /** What was measured last: one row, however large the fleet is; `undefined`: nothing yet. */
  async read(): Promise<MeasuredFleet | undefined> {
    const [row] = await this.database.rows(
      Measured,
      Prisma.sql`
        SELECT figures, greatest(0, extract(epoch FROM clock_timestamp() - measured_at))::float AS "ageSeconds"
        FROM fleet_figures WHERE id = 1`,
    );
    return row;
  }
}
