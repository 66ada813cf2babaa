/** The folder that backups are kept in. Whatever else lies in it is left alone. */
import { readdir, rm, stat } from 'node:fs/promises';
import path from 'node:path';

import { BackupError, reasonOf } from './backup-error.js';
import { DumpName, type Manifest, MANIFEST_SUFFIX, PARTIAL_SUFFIX, readManifest } from './manifest.js';

/**
 * A file under way that nobody has written to for so long was left by a run that was killed. `pg_dump` writes all the time, but for
 * the moment in which it waits for a lock.
 */
const ABANDONED_MS = 24 * 3600 * 1000;
const DAY_MS = 24 * 3600 * 1000;

export interface KeptBackup {
  /** Path of the dump. */
  readonly dump: string;
  readonly manifest: Manifest;
}

/** How many backups of a database are kept: one is deleted when neither holds it any more. */
export interface Retention {
  /** The latest so many, at least 1. */
  readonly keep: number;
  /** All that are not older. */
  readonly keepDays: number;
}

/** The whole backups of a folder, the latest first. A manifest that cannot be read makes no backup. */
export async function listBackups(folder: string): Promise<KeptBackup[]> {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (cause) {
    throw new BackupError(`${folder} cannot be read: ${reasonOf(cause)}`, { cause });
  }
  const there = new Set(names);
  const backups: KeptBackup[] = [];
  for (const name of names) {
    if (!DumpName.safeParse(name).success || !there.has(`${name}${MANIFEST_SUFFIX}`)) continue;
    const dump = path.join(folder, name);
    const manifest = await readManifest(dump).catch((error: unknown) => {
      if (error instanceof BackupError) return null;
      throw error;
    });
    if (manifest) backups.push({ dump, manifest });
  }
  return backups.sort((a, b) => b.manifest.takenAt.localeCompare(a.manifest.takenAt));
}

/**
 * Deletes what is not to be kept of a database's backups, and what killed runs have left; returns the names of the backups. The
 * latest stays whatever is asked.
 */
export async function prune(
  folder: string,
  database: string,
  retention: Retention,
  now = Date.now(),
): Promise<string[]> {
  const backups = (await listBackups(folder)).filter(({ manifest }) => manifest.database === database);
  const keepUntil = now - retention.keepDays * DAY_MS;
  const old = backups
    .slice(Math.max(1, retention.keep))
    .filter(({ manifest }) => Date.parse(manifest.takenAt) < keepUntil);
  for (const { dump } of old) {
    // the manifest first: what is left when this is interrupted is no backup
    await rm(`${dump}${MANIFEST_SUFFIX}`);
    await rm(dump, { force: true });
  }
  await removeLeftovers(folder, now);
  return old.map(({ manifest }) => manifest.file);
}

/** Dumps without a manifest, and files under way, that nobody writes to any more. */
async function removeLeftovers(folder: string, now: number): Promise<void> {
  const names = await readdir(folder);
  const there = new Set(names);
  for (const name of names) {
    const base = name.replace(PARTIAL_SUFFIX, '').replace(MANIFEST_SUFFIX, '');
    if (!DumpName.safeParse(base).success || there.has(`${name}${MANIFEST_SUFFIX}`)) continue;
    // a manifest whose dump is there, or was taken away by hand: not ours to judge
    if (name === `${base}${MANIFEST_SUFFIX}`) continue;
    const file = path.join(folder, name);
    const { mtimeMs } = await stat(file);
    if (now - mtimeMs > ABANDONED_MS) await rm(file, { force: true });
  }
}
