/** One moment of the database, which `pg_dump` and we look at together. */
import pg from 'pg';
import { z } from 'zod';

import type { DatabaseAddress } from '../platform/database/migrations.js';
import { BackupError, reasonOf } from './backup-error.js';

/** A database that is not there is noticed before an operator wonders. */
const CONNECT_TIMEOUT_MS = 10_000;

/**
 * Jobs are hints to look at rows (docs/jobs.md), and those of the past are about nothing: without Redis they are in the database,
 * in this schema, and the backend that starts next makes it anew.
 */
export const LEFT_OUT_SCHEMA = 'bullmq';

const Row = z.object({ id: z.string(), taken_at: z.date(), version: z.string(), version_number: z.coerce.number() });
const Table = z.object({ name: z.string() });
const Count = z.object({ count: z.coerce.number().int() });
const Migration = z.object({ name: z.string() });

export interface Snapshot {
  /** For `pg_dump --snapshot`. */
  readonly id: string;
  readonly takenAt: Date;
  /** As it names itself. */
  readonly serverVersion: string;
  readonly serverMajor: number;
  readonly migrations: readonly string[];
  readonly rows: Readonly<Record<string, number>>;
}

/** Connects; the caller ends it. */
export async function connect(address: DatabaseAddress): Promise<pg.Client> {
  const client = new pg.Client({
    ...address,
    application_name: 'bore-backup',
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
  });
  // reported by the next statement
  client.on('error', () => undefined);
  try {
    await client.connect();
    return client;
  } catch (cause) {
    throw new BackupError(`the database ${address.database} cannot be reached: ${reasonOf(cause)}`, { cause });
  }
}

/**
 * Begins a transaction that holds the moment until `client` ends, and counts what is in it.
 * @throws BackupError when the database is not ours
 */
export async function takeSnapshot(client: pg.Client): Promise<Snapshot> {
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  const { rows } = await client.query(
    `SELECT pg_export_snapshot() AS id, now() AS taken_at, current_setting('server_version') AS version,
            current_setting('server_version_num') AS version_number`,
  );
  const [about] = z.tuple([Row]).parse(rows);
  const tables = Table.array().parse(
    // unlogged tables are empty after a crash, and left out of a backup for the same reason
    (
      await client.query(
        `SELECT c.relname AS name FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
           AND c.relpersistence = 'p' ORDER BY 1`,
      )
    ).rows,
  );
  if (!tables.some(({ name }) => name === '_prisma_migrations')) {
    throw new BackupError('the database holds no bore-platform: it has no migrations');
  }
  const counts: Record<string, number> = {};
  for (const { name } of tables) {
    const answer = await client.query(`SELECT count(*) AS count FROM public.${pg.escapeIdentifier(name)}`);
    counts[name] = z.tuple([Count]).parse(answer.rows)[0].count;
  }
  const applied = await client.query(
    `SELECT migration_name AS name FROM public._prisma_migrations
     WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL ORDER BY migration_name`,
  );
  return {
    id: about.id,
    takenAt: about.taken_at,
    serverVersion: about.version,
    serverMajor: Math.floor(about.version_number / 10_000),
    migrations: Migration.array()
      .parse(applied.rows)
      .map(({ name }) => name),
    rows: counts,
  };
}
