/**
 * A streaming replica of a PostgreSQL on this machine. The binaries from npm have no `pg_basebackup`, so this makes the base
 * backup by the functions that it uses itself:
 *
 *   a replication slot, so that the primary keeps the log from here on
 *   pg_backup_start → copy the files while they change → pg_backup_stop, which returns `backup_label`
 *   backup_label, standby.signal and the primary's address beside the copied files
 *
 * On its first start the copy replays the log of the time that copying took, and is consistent.
 */
import { existsSync } from 'node:fs';
import { appendFile, chmod, chown, copyFile, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';

import pg from 'pg';
import { z } from 'zod';

import {
  type EmbeddedPostgres,
  type EmbeddedPostgresOptions,
  type RunAs,
  startEmbeddedPostgres,
  unprivilegedUser,
} from './embedded-postgres.js';

/**
 * How much log the primary keeps for a replica that is away. Then it lets go, and the replica must be made anew: a replica that
 * never returns must not fill the primary's disk.
 */
const SLOT_KEEPS = '1GB';
/** What belongs to the running primary and not to a copy: left out, or made as empty folders. */
const NOT_COPIED = new Set(['postmaster.pid', 'postmaster.opts', 'backup_label', 'standby.signal', 'recovery.signal']);
const EMPTY_IN_COPY = new Set([
  'pg_wal',
  'pg_replslot',
  'pg_dynshmem',
  'pg_notify',
  'pg_serial',
  'pg_snapshots',
  'pg_stat_tmp',
  'pg_subtrans',
]);

/** Of whom a replica is made; a superuser's login, on loopback. */
export interface PrimaryAddress {
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly dataDir: string;
}

export interface PostgresReplicaOptions extends Omit<EmbeddedPostgresOptions, 'user' | 'password'> {
  readonly primary: PrimaryAddress;
  /** Its replication slot and its name in the primary's `pg_stat_replication`: lower-case letters, digits, `_`. */
  readonly name: string;
}

/** Starts the replica, copying the primary first when there is no copy yet, and resolves when it takes readers. */
export async function startPostgresReplica(options: PostgresReplicaOptions): Promise<EmbeddedPostgres> {
  const { primary, dataDir } = options;
  // it knows where its primary is from when it was made: of another place, it is made anew
  const settings = await readFile(path.join(dataDir, 'postgresql.auto.conf'), 'utf8').catch(() => '');
  if (settings && !settings.includes(` port=${primary.port} `)) await rm(dataDir, { recursive: true });
  if (!existsSync(path.join(dataDir, 'PG_VERSION'))) await copyPrimary(options);
  return startEmbeddedPostgres({ ...options, user: primary.user, password: primary.password });
}

/** Makes a replica the primary of its own; resolves when it takes writes. */
export async function promoteReplica(address: { port: number; user: string; password: string }): Promise<void> {
  const client = await connect(address);
  try {
    const { rows } = await client.query('SELECT pg_promote(true, 60) AS promoted');
    const [answer] = z.tuple([z.object({ promoted: z.boolean() })]).parse(rows);
    if (!answer.promoted) throw new Error('the replica was not promoted in 60 s');
  } finally {
    await client.end();
  }
}

async function copyPrimary({ primary, dataDir, name }: PostgresReplicaOptions): Promise<void> {
  const runAs = unprivilegedUser();
  // made beside its place and moved there when it is whole
  const work = `${dataDir}.half-made`;
  await rm(work, { recursive: true, force: true });
  const client = await connect(primary);
  try {
    await client.query(`ALTER SYSTEM SET max_slot_wal_keep_size = '${SLOT_KEEPS}'`);
    await client.query('SELECT pg_reload_conf()');
    await client.query('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1', [
      name,
    ]);
    await client.query('SELECT pg_create_physical_replication_slot($1, true)', [name]);
    await client.query(`SELECT pg_backup_start($1, fast => true)`, [name]);
    await copyFolder(primary.dataDir, work, runAs);
    const { rows } = await client.query('SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)');
    const [{ labelfile }] = z.tuple([z.object({ labelfile: z.string() })]).parse(rows);
    await write(path.join(work, 'backup_label'), labelfile, runAs);
    await write(path.join(work, 'standby.signal'), '', runAs);
    await appendFile(path.join(work, 'postgresql.auto.conf'), standbySettings(primary, name));
  } finally {
    await client.end();
  }
  await rename(work, dataDir);
}

/** In a file that only PostgreSQL's user reads, as `pg_basebackup -R` has it. */
function standbySettings({ port, user, password }: PrimaryAddress, name: string): string {
  // once for the connection string, and once more for the file
  const value = (text: string) => `'${text.replaceAll(/[\\']/g, String.raw`\$&`)}'`;
  const conninfo = `host=127.0.0.1 port=${port} user=${value(user)} password=${value(password)} application_name=${name}`;
  return `primary_conninfo = '${conninfo.replaceAll('\\', '\\\\').replaceAll("'", "''")}'\nprimary_slot_name = '${name}'\n`;
}

/** Copies a folder whose files change, grow and vanish meanwhile: replaying the log mends what was copied half. */
async function copyFolder(from: string, to: string, runAs: RunAs): Promise<void> {
  await mkdir(to, { mode: 0o700 });
  await own(to, runAs);
  for (const entry of await readdir(from, { withFileTypes: true })) {
    if (NOT_COPIED.has(entry.name) || entry.name.startsWith('pgsql_tmp')) continue;
    const [source, target] = [path.join(from, entry.name), path.join(to, entry.name)];
    if (EMPTY_IN_COPY.has(entry.name)) {
      await mkdir(target, { mode: 0o700 });
      await own(target, runAs);
    } else if (entry.isDirectory()) await copyFolder(source, target, runAs);
    else await copyIfThere(source, target, runAs);
  }
}

async function copyIfThere(source: string, target: string, runAs: RunAs): Promise<void> {
  try {
    await copyFile(source, target);
  } catch (error) {
    // a table that was dropped meanwhile: the log says so too
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return;
    throw error;
  }
  await chmod(target, 0o600);
  await own(target, runAs);
}

async function write(file: string, text: string, runAs: RunAs): Promise<void> {
  await writeFile(file, text, { mode: 0o600 });
  await own(file, runAs);
}

async function own(file: string, { uid, gid }: RunAs): Promise<void> {
  if (uid !== undefined && gid !== undefined) await chown(file, uid, gid);
}

async function connect({ port, user, password }: { port: number; user: string; password: string }): Promise<pg.Client> {
  const client = new pg.Client({
    host: '127.0.0.1',
    port,
    user,
    password,
    database: 'postgres',
    application_name: 'bore-replica',
  });
  await client.connect();
  return client;
}
