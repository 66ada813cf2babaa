import { existsSync } from 'node:fs';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import path from 'node:path';

import type { DatabaseAddress } from '../platform/database/migrations.js';
import { encrypterFor, syncFolder, writeArchive } from './archive.js';
import { BackupError, reasonOf } from './backup-error.js';
import { dumpName, type Manifest, MANIFEST_SUFFIX, manifestOf, PARTIAL_SUFFIX } from './manifest.js';
import type { PostgresTools } from './postgres-tools.js';
import { connect, LEFT_OUT_SCHEMA, takeSnapshot } from './snapshot.js';
import { checkDump } from './verify-backup.js';

export interface BackupOptions {
  readonly address: DatabaseAddress;
  readonly folder: string;
  /** age's public key; not set: in clear. */
  readonly recipient: string | undefined;
  readonly tools: PostgresTools;
  /** Gives up. */
  readonly signal: AbortSignal;
}

/**
 * Makes one backup and returns its manifest. It appears in the folder when it is whole: whatever happens before leaves the backups
 * that are there as they are.
 *
 *     dump under a name of its own → fsync → read back and checked → named → its manifest, likewise
 *
 * @throws BackupError
 */
export async function takeBackup({ address, folder, recipient, tools, signal }: BackupOptions): Promise<Manifest> {
  const encrypter = recipient === undefined ? undefined : encrypterFor(recipient);
  const client = await connect(address);
  let dump: string | undefined;
  try {
    const snapshot = await takeSnapshot(client);
    const major = await tools.major('pg_dump');
    if (major < snapshot.serverMajor) {
      throw new BackupError(
        `pg_dump ${major} cannot back up PostgreSQL ${snapshot.serverMajor}: name the folder of a newer one in PG_BIN_DIR`,
      );
    }
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const file = dumpName(snapshot.takenAt, recipient !== undefined);
    const named = path.join(folder, file);
    const partial = `${named}${PARTIAL_SUFFIX}`;
    await claim(named);
    // from here on what bears this name is ours
    dump = named;
    const run = tools.start(
      'pg_dump',
      [
        '--format=custom',
        `--snapshot=${snapshot.id}`,
        `--exclude-schema=${LEFT_OUT_SCHEMA}`,
        // whoever restores it owns it
        '--no-owner',
        '--no-privileges',
        '--no-unlogged-table-data',
      ],
      signal,
      address,
    );
    run.stdin.end();
    const [written, ended] = await Promise.allSettled([
      writeArchive(run.stdout, partial, encrypter, signal).finally(() => run.stdout.destroy()),
      run.done,
    ]);
    if (signal.aborted) throw signal.reason;
    // a full disk ends pg_dump too, by a signal: the cause is what is said
    if (written.status === 'rejected' && isOfDisk(written.reason)) throw written.reason;
    if (ended.status === 'rejected') throw ended.reason;
    if (written.status === 'rejected') throw written.reason;
    const manifest = manifestOf({
      takenAt: snapshot.takenAt.toISOString(),
      database: address.database,
      serverVersion: snapshot.serverVersion,
      migrations: [...snapshot.migrations],
      rows: { ...snapshot.rows },
      file,
      ...written.value,
      encryption: recipient === undefined ? 'none' : 'age',
    });
    await checkDump(partial, manifest, { tools, identity: undefined, signal });
    await rename(partial, dump);
    await writeManifest(dump, manifest);
    return manifest;
  } catch (error) {
    if (dump !== undefined) await removeHalfMade(dump);
    if (error instanceof BackupError) throw error;
    throw new BackupError(`the backup was not made: ${reasonOf(error)}`, { cause: error });
  } finally {
    await client.end();
  }
}

/**
 * Makes the file that a dump is written to. Whoever has made it has the name to itself.
 * @throws BackupError when another backup shows the same millisecond: each would delete the other's files, or write over them
 */
async function claim(dump: string): Promise<void> {
  const partial = `${dump}${PARTIAL_SUFFIX}`;
  const taken = new BackupError(`${dump} is another backup of the same moment: begin again`);
  try {
    const handle = await open(partial, 'wx', 0o600);
    await handle.close();
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') throw taken;
    throw error;
  }
  if (!existsSync(dump)) return;
  await rm(partial);
  throw taken;
}

async function writeManifest(dump: string, manifest: Manifest): Promise<void> {
  const file = `${dump}${MANIFEST_SUFFIX}`;
  const handle = await open(`${file}${PARTIAL_SUFFIX}`, 'wx', 0o600);
  try {
    await handle.writeFile(`${JSON.stringify(manifest, null, 2)}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(`${file}${PARTIAL_SUFFIX}`, file);
  await syncFolder(dump);
}

async function removeHalfMade(dump: string): Promise<void> {
  for (const file of [`${dump}${MANIFEST_SUFFIX}${PARTIAL_SUFFIX}`, `${dump}${PARTIAL_SUFFIX}`, dump]) {
    await rm(file, { force: true });
  }
}

/** Whether the system refused to write. */
function isOfDisk(error: unknown): boolean {
  return (
    error instanceof Error &&
    'syscall' in error &&
    (error.syscall === 'write' || error.syscall === 'open' || error.syscall === 'fsync')
  );
}
