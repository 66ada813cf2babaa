/** What a scrape costs the database does not depend on how much there is in it. */
import { afterAll, beforeAll, expect, it } from 'vitest';

import { type Backend, startBackend } from '../harness/backend.js';
import { type Scrape, scrape } from '../harness/metrics.js';
import { OwnPostgres } from '../harness/own-postgres.js';
import { until } from '../harness/until.js';

const SCRAPES = 300;
const FEW = 10;
const MANY = 10_000;
/** The job measures every 15 s here, and what it wrote is read within 2 s. */
const MEASURED_MS = 40_000;

let postgres: OwnPostgres;
let backend: Backend;

beforeAll(async () => {
  postgres = await OwnPostgres.start(['shared_preload_libraries=pg_stat_statements', 'pg_stat_statements.track=all']);
  await postgres.query('CREATE EXTENSION pg_stat_statements');
  await postgres.query(
    `INSERT INTO users (id, email, password_hash) VALUES ('00000000-0000-0000-0000-000000000001', 'a@example.com', 'none')`,
  );
  await postgres.query(
    `INSERT INTO servers (id, host, port, location, state, max_tunnels, max_bandwidth_mbps, port_min, port_max, lease_until)
     VALUES ('s1', 'h', 7835, 'here', 'online', 20000, 1000, 10000, 30000, now() + interval '1 day')`,
  );
  await addTunnels(0, FEW);
  backend = await startBackend({ database: postgres });
});

afterAll(async () => {
  await backend?.stop();
  await postgres?.drop();
});

/** Open tunnels on ports from..to. */
async function addTunnels(from: number, to: number): Promise<void> {
  await postgres.query(
    `INSERT INTO tunnels (id, user_id, server_id, port, state, sealed_key, idle_deadline)
     SELECT gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 's1', 10000 + n, 'pending', '\\x00', now() + interval '1 day'
     FROM generate_series($1::int, $2::int - 1) n`,
    [from, to],
  );
}

const measured = (count: number): Promise<Scrape> =>
  until(
    async () => {
      const at = await scrape(backend.url);
      return at.value('bore_tunnels', { state: 'pending' }) === count ? at : undefined;
    },
    `${count} tunnels are shown`,
    MEASURED_MS,
  );

/** Statements of the backend while it is scraped, and the rows that they read: those of its own clocks too. */
async function statementsOf(scrapes: number): Promise<{ calls: number; rows: number }> {
  await postgres.query('SELECT pg_stat_statements_reset()');
  for (let i = 0; i < scrapes; i++) await scrape(backend.url);
  const [row] = await postgres.query(
    `SELECT coalesce(sum(calls), 0)::int AS calls, coalesce(sum(rows), 0)::int AS rows FROM pg_stat_statements
     WHERE query NOT LIKE '%pg_stat_statements%' AND query ILIKE ANY (ARRAY['%tunnels%', '%fleet_figures%', '%servers%'])`,
  );
  return { calls: Number(row?.['calls']), rows: Number(row?.['rows']) };
}

it(`is the same with ${FEW} tunnels and with ${MANY}: no statement at all`, { timeout: 120_000 }, async () => {
  await measured(FEW);
  const few = await statementsOf(SCRAPES);
  await addTunnels(FEW, MANY);
  await measured(MANY);
  const many = await statementsOf(SCRAPES);
  // what is counted here is done by clocks, some times a second; one statement a scrape would be 300
  for (const { calls } of [few, many]) expect(calls).toBeLessThan(SCRAPES / 3);
  // and the one that reads the figures reads one row
  const [row] = await postgres.query(
    `SELECT max(rows::float / calls) AS rows FROM pg_stat_statements WHERE query LIKE '%FROM fleet_figures%' AND calls > 0`,
  );
  expect(Number(row?.['rows'])).toBeLessThanOrEqual(1);
  process.stdout.write(
    `${SCRAPES} scrapes beside ${few.calls} statements with ${FEW} tunnels, ${many.calls} with ${MANY}\n`,
  );
});
