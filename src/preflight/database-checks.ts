import { z } from 'zod';

import type { Config } from '../platform/config/config.js';
import { migrationStatus } from '../platform/database/migrations.js';
import { connectionsOfAll } from '../platform/database/pool-size.js';
import { addressOf, type DatabaseReader } from './database-reader.js';
import { expectedIndexes } from './expected-indexes.js';
import { type Check, fail, type Finding, type Group, listed, notChecked, pass, reasonOf } from './finding.js';

/**
 * Leases and deadlines are told by the database's clock, tokens by a backend's; a token lives for minutes. NTP keeps machines
 * within milliseconds, and this is beyond what a slow network adds to the measurement.
 */
const SKEW_MS_MAX = 2_000;
const CLOCK_TRIES = 3;
/** As the backends count each other: one that has not been seen for so long is gone. */
const BACKEND_STALE_SECONDS = 15;

/** @param database the connection, or why there is none */
export function databaseChecks(config: Config, database: DatabaseReader | Error): Group {
  const where = `${addressOf(config).host}:${addressOf(config).port}/${config.DB_NAME}`;
  const on = (run: (reader: DatabaseReader) => Promise<Finding>): Check['run'] =>
    database instanceof Error ? () => notChecked('the database is not reached') : () => run(database);
  return {
    name: 'Database',
    checks: [
      {
        id: 'database',
        title: 'PostgreSQL answers',
        run: () =>
          database instanceof Error
            ? fail(`${where}: ${reasonOf(database)}`, 'check DB_*, the firewall and pg_hba.conf')
            : pass(where),
      },
      { id: 'migrations', title: 'migrations are complete', run: on(() => migrations(config)) },
      { id: 'indexes-valid', title: 'indexes are valid', run: on(indexesValid) },
      { id: 'indexes', title: 'indexes are there', run: on(indexesThere) },
      { id: 'connections', title: 'pools fit max_connections', run: on((reader) => connections(config, reader)) },
      { id: 'instances', title: 'no more backends than were planned', run: on((reader) => instances(config, reader)) },
      { id: 'clock', title: 'this clock and the database’s agree', run: on(clock) },
    ],
  };
}

async function migrations(config: Config): Promise<Finding> {
  const { pending, failed, edited, unknown } = await migrationStatus(addressOf(config));
  if (failed.length > 0)
    return fail(`failed half-way: ${listed(failed)}`, 'look at npm run migrate:status; restore, or mend by hand');
  if (pending.length > 0) return fail(`missing: ${listed(pending)}`, 'npm run migrate:up');
  if (edited.length > 0)
    return fail(
      `not as in this release: ${listed(edited)}`,
      'applied migrations are never edited: use the release’s own',
    );
  return pass(unknown.length > 0 ? `complete; ${unknown.length} are of a later release` : 'all that this release has');
}

async function indexesValid(database: DatabaseReader): Promise<Finding> {
  const broken = await database.rows(
    z.object({ name: z.string() }),
    `SELECT c.relname AS name FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
      WHERE NOT (i.indisvalid AND i.indisready) ORDER BY 1`,
  );
  if (broken.length === 0) return pass('none is left half-built');
  const names = broken.map(({ name }) => name);
  return fail(
    `invalid: ${listed(names)}`,
    `a CREATE INDEX CONCURRENTLY has failed, or is under way: REINDEX INDEX CONCURRENTLY, or DROP INDEX what no migration made`,
  );
}

async function indexesThere(database: DatabaseReader): Promise<Finding> {
  const rows = await database.rows(
    z.object({ name: z.string() }),
    'SELECT indexname AS name FROM pg_indexes WHERE schemaname = current_schema()',
  );
  const there = new Set(rows.map(({ name }) => name));
  const expected = await expectedIndexes();
  const missing = expected.filter((name) => !there.has(name));
  if (missing.length === 0) return pass(`all ${expected.length}`);
  return fail(
    `missing: ${listed(missing)}`,
    'run npm run migrate:up; where that finds nothing, make them as prisma/migrations does, with CONCURRENTLY',
  );
}

async function connections(config: Config, database: DatabaseReader): Promise<Finding> {
  const [row] = await database.rows(
    z.object({ max: z.int() }),
    `SELECT current_setting('max_connections')::int AS max`,
  );
  const max = row?.max ?? 0;
  const wanted = connectionsOfAll(config);
  const sum = `${config.BACKEND_INSTANCES} backends with a pool of ${config.DB_POOL_SIZE}: ${wanted} of ${max}`;
  if (config.DB_DIRECT_HOST !== undefined)
    return notChecked(`${sum}, but a pooler stands between`, 'compare with max_client_conn and the pool of the pooler');
  if (wanted <= max) return pass(sum);
  return fail(sum, 'set DB_MAX_CONNECTIONS to max_connections of PostgreSQL: pools become smaller, or raise it');
}

async function instances(config: Config, database: DatabaseReader): Promise<Finding> {
  const alive = await liveBackends(database);
  if (alive === undefined) return notChecked('the database has no table of backends yet');
  if (alive === 0) return notChecked('no backend is running');
  const found = `${alive} of ${config.BACKEND_INSTANCES} are running`;
  return alive <= config.BACKEND_INSTANCES
    ? pass(found)
    : fail(found, 'set BACKEND_INSTANCES to the most that run at once, those of a rolling update included');
}

/** How many backends run now; undefined: the database is not migrated. */
export async function liveBackends(database: DatabaseReader): Promise<number | undefined> {
  if (!(await hasTable(database, 'backends'))) return undefined;
  const [row] = await database.rows(
    z.object({ count: z.int() }),
    'SELECT count(*)::int AS count FROM backends WHERE seen_at > now() - make_interval(secs => $1)',
    [BACKEND_STALE_SECONDS],
  );
  return row?.count ?? 0;
}

export async function hasTable(database: DatabaseReader, name: string): Promise<boolean> {
  const [row] = await database.rows(z.object({ there: z.boolean() }), 'SELECT to_regclass($1) IS NOT NULL AS there', [
    name,
  ]);
  return row?.there === true;
}

/** The best of a few: the one with the shortest way there and back. */
async function clock(database: DatabaseReader): Promise<Finding> {
  let best = { skewMs: Infinity, tripMs: Infinity };
  for (let i = 0; i < CLOCK_TRIES; i++) {
    const startedAt = performance.now();
    const before = Date.now();
    const [row] = await database.rows(
      z.object({ now: z.number() }),
      'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS now',
    );
    const tripMs = performance.now() - startedAt;
    if (row && tripMs < best.tripMs) best = { skewMs: row.now - before - tripMs / 2, tripMs };
  }
  const apart = Math.max(0, Math.abs(best.skewMs) - best.tripMs / 2);
  const found = `${(apart / 1000).toFixed(1)} s apart`;
  return apart <= SKEW_MS_MAX ? pass(found) : fail(found, 'run chrony or systemd-timesyncd on both machines');
}
