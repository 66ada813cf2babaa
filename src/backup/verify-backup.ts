import { digestOf, feed, readArchive } from './archive.js';
import { BackupError } from './backup-error.js';
import { type Manifest, readManifest } from './manifest.js';
import type { PostgresTools } from './postgres-tools.js';

export interface VerifyOptions {
  readonly tools: PostgresTools;
  /** age's secret key; without it an encrypted dump is compared with its checksum, and not opened. */
  readonly identity: string | undefined;
  readonly signal: AbortSignal;
}

/** How much of a backup has been looked at. */
export type Checked = 'read to its end' | 'checksum only';

/**
 * Checks a backup against its manifest.
 * @throws BackupError saying what is wrong with it
 */
export async function verifyBackup(
  dump: string,
  options: VerifyOptions,
): Promise<{ manifest: Manifest; checked: Checked }> {
  const manifest = await readManifest(dump);
  return { manifest, checked: await checkDump(dump, manifest, options) };
}

/**
 * Checks the file of a dump: its length and checksum, and that `pg_restore` reads it to its end, every table's data included.
 * @throws BackupError
 */
export async function checkDump(
  file: string,
  manifest: Manifest,
  { tools, identity, signal }: VerifyOptions,
): Promise<Checked> {
  const digest = await digestOf(file, signal);
  if (digest.bytes !== manifest.bytes) {
    throw new BackupError(`${file} has ${digest.bytes} bytes, and not the ${manifest.bytes} of its manifest`);
  }
  if (digest.sha256 !== manifest.sha256)
    throw new BackupError(`${file} has changed: its SHA-256 is not that of its manifest`);
  if (manifest.encryption === 'age' && identity === undefined) return 'checksum only';
  const archive = await readArchive(file, manifest.encryption === 'age' ? identity : undefined);
  const restore = tools.start('pg_restore', ['--file=-'], signal);
  restore.stdout.resume();
  // a pg_restore that ends early has the word
  const [fed, ended] = await Promise.allSettled([feed(archive, restore.stdin, signal), restore.done]);
  if (ended.status === 'rejected') throw ended.reason;
  if (fed.status === 'rejected') throw new BackupError(`${file} cannot be read to its end`, { cause: fed.reason });
  return 'read to its end';
}
