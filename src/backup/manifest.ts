/**
 * What stands beside every backup. A dump without a manifest is none: the manifest is written last, when the dump is whole,
 * on the disk and checked.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';

import { z } from 'zod';

import { BackupError, reasonOf } from './backup-error.js';

/** Grows when a release could not read what another has written. */
const FORMAT = 1;

/** `bore-20261129T012345678Z.dump`, with `.age` behind it when it is encrypted. */
export const DumpName = z.string().regex(/^bore-\d{8}T\d{9}Z\.dump(\.age)?$/);
/** Behind the name of the dump. */
export const MANIFEST_SUFFIX = '.manifest.json';
/** Behind the name of a file that is being written. */
export const PARTIAL_SUFFIX = '.partial';

export const Manifest = z.object({
  format: z.literal(FORMAT),
  /** The moment that the backup shows, by the clock of the database. */
  takenAt: z.iso.datetime(),
  database: z.string(),
  /** As PostgreSQL names itself, e.g. `18.4`. */
  serverVersion: z.string(),
  /** Names of all that are applied, in their order. */
  migrations: z.array(z.string()),
  /** Rows of each table at `takenAt`. */
  rows: z.record(z.string(), z.int().min(0)),
  file: DumpName,
  bytes: z.int().min(1),
  /** Of the file as it lies on the disk, in hex. */
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  encryption: z.enum(['none', 'age']),
});
export type Manifest = z.infer<typeof Manifest>;

export function manifestOf(content: Omit<Manifest, 'format'>): Manifest {
  return { format: FORMAT, ...content };
}

/** The name of a dump that shows `takenAt`. */
export function dumpName(takenAt: Date, encrypted: boolean): string {
  return `bore-${takenAt.toISOString().replaceAll(/[-:.]/g, '')}.dump${encrypted ? '.age' : ''}`;
}

/**
 * Reads the manifest of a dump.
 * @throws BackupError when there is none, or none that this release understands
 */
export async function readManifest(dump: string): Promise<Manifest> {
  const file = `${dump}${MANIFEST_SUFFIX}`;
  let content: unknown;
  try {
    content = JSON.parse(await readFile(file, 'utf8'));
  } catch (cause) {
    const missing = cause instanceof Error && 'code' in cause && cause.code === 'ENOENT';
    throw new BackupError(
      missing ? `${dump} is not a whole backup: it has no manifest` : `${file} cannot be read: ${reasonOf(cause)}`,
      { cause },
    );
  }
  const manifest = Manifest.safeParse(content);
  if (!manifest.success) throw new BackupError(`${file} is not a manifest that this release understands`);
  if (manifest.data.file !== path.basename(dump))
    throw new BackupError(`${file} is the manifest of ${manifest.data.file}`);
  return manifest.data;
}
