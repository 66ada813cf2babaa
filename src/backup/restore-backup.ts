import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

import type pg from 'pg';
import { z } from 'zod';

import { migrationNames, MIGRATIONS_DIR } from '../platform/database/migration-folder.js';
import type { DatabaseAddress } from '../platform/database/migrations.js';
import { countedRowsSql, goneBackSql } from './after-restore.sql.js';
import { feed, readArchive } from './archive.js';
import { listEntries, possibleExtensions, selectEntries, type Selection } from './archive-entries.js';
import { BackupError, reasonOf } from './backup-error.js';
import type { Manifest } from './manifest.js';
import { connect, LEFT_OUT_SCHEMA } from './snapshot.js';
import { verifyBackup, type VerifyOptions } from './verify-backup.js';

export interface RestoreOptions extends VerifyOptions {
  readonly address: DatabaseAddress;
  /** Whether what the database holds may go. */
  readonly overwrite: boolean;
  /** Whether the backup may be of a database of another name. */
  readonly otherDatabase: boolean;
  /** Called when nothing is in the way any more, before anything is written. */
  readonly onBegin: (manifest: Manifest) => void;
}

export interface Restored {
  readonly manifest: Manifest;
  /** Migrations of this release that the backup is older than. */
  readonly pending: readonly string[];
  /** Extensions of the backup that are not restored, because `address.user` may not make them. */
  readonly leftOut: readonly string[];
  /** Why PostgreSQL has no figures of the tables, when it has none. */
  readonly notAnalyzed: string | undefined;
}

/** PostgreSQL's own way to make it, also for a user who owns the database and nothing else. */
const BEGIN = `BEGIN;
DROP SCHEMA IF EXISTS ${LEFT_OUT_SCHEMA} CASCADE;
DROP SCHEMA IF EXISTS public CASCADE;
CREATE SCHEMA public AUTHORIZATION pg_database_owner;
GRANT USAGE ON SCHEMA public TO PUBLIC;
`;

const Found = z.tuple([z.object({ objects: z.coerce.number(), others: z.coerce.number() })]);

/**
 * Restores a backup, all of it or nothing: one transaction deletes what is there, brings back what the backup holds, counts it, and
 * says what must be said to a database that has gone back in time.
 * @throws BackupError; the database is then as it was
 */
export async function restoreBackup(dump: string, options: RestoreOptions): Promise<Restored> {
  const { address, signal } = options;
  const { manifest, checked } = await verifyBackup(dump, options);
  if (checked === 'checksum only') {
    throw new BackupError(`${dump} is encrypted: name the file of the secret key in BACKUP_AGE_IDENTITY_FILE`);
  }
  if (manifest.database !== address.database && !options.otherDatabase) {
    throw new BackupError(
      `${dump} is of the database ${manifest.database}, and ${placeOf(address)} is another: give --other-database if that is meant`,
    );
  }
  const known = await migrationNames(MIGRATIONS_DIR);
  const later = manifest.migrations.find((name) => !known.includes(name));
  if (later !== undefined) {
    throw new BackupError(`${dump} is of a later release: this one does not know its migration ${later}`);
  }
  let selection: Selection;
  try {
    selection = await prepare(dump, manifest, options);
    options.onBegin(manifest);
    await replay(dump, manifest, selection.list, options);
  } catch (error) {
    if (error instanceof BackupError) throw error;
    throw new BackupError(`the backup was not restored: ${reasonOf(signal.aborted ? signal.reason : error)}`, {
      cause: error,
    });
  }
  return {
    manifest,
    pending: known.filter((name) => !manifest.migrations.includes(name)),
    leftOut: selection.leftOut,
    notAnalyzed: await analyze(address),
  };
}

/** What an operator knows a database by. */
export function placeOf({ host, port, database }: DatabaseAddress): string {
  return `${database} at ${host}:${port}`;
}

/** Looks at what the database and the dump hold. Its connection would be idle while the rest goes on, and is not kept. */
async function prepare(dump: string, manifest: Manifest, options: RestoreOptions): Promise<Selection> {
  const { address, overwrite, tools, signal } = options;
  const client = await connect(address);
  try {
    await refuseUnlessFree(client, address, overwrite);
    const possible = await possibleExtensions(client);
    return selectEntries(await listEntries(await contentOf(dump, manifest, options), tools, signal), possible);
  } finally {
    await client.end();
  }
}

/**
 * Without figures of its tables the first minutes would be slow. What was restored stays, whatever becomes of this.
 * Returns why it failed.
 */
async function analyze(address: DatabaseAddress): Promise<string | undefined> {
  try {
    const client = await connect(address);
    try {
      await client.query('ANALYZE');
    } finally {
      await client.end();
    }
    return undefined;
  } catch (error) {
    return reasonOf(error);
  }
}

/**
 * Says to a database that was recovered to a moment what a restore says too.
 * @throws BackupError; nothing has changed then
 */
export async function tellGoneBack(address: DatabaseAddress, moment: string): Promise<void> {
  const client = await connect(address);
  try {
    await refuseUnlessFree(client, address, true);
    await client.query(`BEGIN;${goneBackSql(moment)}COMMIT;`);
  } catch (error) {
    if (error instanceof BackupError) throw error;
    throw new BackupError(`the database was not told: ${reasonOf(error)}`, { cause: error });
  } finally {
    await client.end();
  }
}

async function refuseUnlessFree(client: pg.Client, { database }: DatabaseAddress, overwrite: boolean): Promise<void> {
  const { rows } = await client.query(
    `SELECT (SELECT count(*) FROM pg_class WHERE relnamespace NOT IN
               (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_' OR nspname = 'information_schema')) AS objects,
            (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
               AND coalesce(backend_type, 'client backend') = 'client backend') AS others`,
  );
  const [{ objects, others }] = Found.parse(rows);
  if (objects > 0 && !overwrite) {
    throw new BackupError(`the database ${database} is not empty: give --overwrite to delete what it holds`);
  }
  if (others > 0) {
    throw new BackupError(
      `${others} other connection(s) to the database ${database} are open: stop the backends first`,
    );
  }
}

/** What `pg_dump` wrote. */
function contentOf(dump: string, { encryption }: Manifest, { identity }: RestoreOptions): Promise<Readable> {
  return readArchive(dump, encryption === 'age' ? identity : undefined);
}

/**
 * Everything between BEGIN and COMMIT; what does not come as far as COMMIT has changed nothing.
 * @param list of the entries that are restored
 */
async function replay(dump: string, manifest: Manifest, list: string, options: RestoreOptions): Promise<void> {
  const { address, tools, signal } = options;
  // pg_restore reads the list from a file, and the dump from us
  const folder = await mkdtemp(path.join(tmpdir(), 'bore-restore-'));
  try {
    const listFile = path.join(folder, 'entries');
    await writeFile(listFile, list, 'latin1');
    const psql = tools.start(
      'psql',
      ['--no-psqlrc', '--quiet', '--set=ON_ERROR_STOP=1', '--output=/dev/null'],
      signal,
      address,
    );
    psql.stdout.resume();
    const pgRestore = tools.start(
      'pg_restore',
      ['--no-owner', '--no-privileges', `--use-list=${listFile}`, '--file=-'],
      signal,
    );
    const fed = feed(await contentOf(dump, manifest, options), pgRestore.stdin, signal);
    // heard in the script
    fed.catch(() => undefined);
    const script = async function* (): AsyncGenerator<string | Buffer> {
      yield BEGIN;
      for await (const chunk of pgRestore.stdout) yield Buffer.from(chunk);
      await Promise.all([fed, pgRestore.done]);
      yield `${countedRowsSql(manifest)}${goneBackSql(manifest.takenAt)}\nCOMMIT;\n`;
    };
    const [sent, ended] = await Promise.allSettled([
      pipeline(script, psql.stdin, { signal }).finally(() => pgRestore.kill()),
      psql.done,
    ]);
    // when psql has refused a statement, that is why it took no more
    if (ended.status === 'rejected') throw ended.reason;
    if (sent.status === 'rejected') throw sent.reason;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
