import { execFile, execFileSync } from 'node:child_process';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { afterAll } from 'vitest';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Nobody's, and that of the images. */
export const USER = { uid: 10_001, gid: 10_001 };

/** Packs, and copies some 60 MB, on a machine that may be busy. */
const PACKAGE_TIMEOUT_MS = 120_000;

const folders: string[] = [];

// not in the folder of the run, all of which is searched for secrets at its end: packages have thousands of files
afterAll(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true });
});

/** A folder for this suite that an ordinary user can reach, and not write in when we are root. */
export async function newFolder(prefix: string): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), `bore-${prefix}`));
  folders.push(folder);
  await chmod(folder, 0o755);
  return folder;
}

/** What `npm run package` makes of a program, in a folder of its own. */
export async function packaged(program: 'backend' | 'bore-server' | 'borectl'): Promise<string> {
  const folder = path.join(await newFolder(`${program}-`), program);
  const args = [path.join(ROOT, 'scripts/package.mjs'), program, folder];
  await promisify(execFile)(process.execPath, args, { timeout: PACKAGE_TIMEOUT_MS });
  return folder;
}

/** The beginning of a command line that runs the rest as an ordinary user; nothing where we are one. */
export function asOrdinaryUser(): string[] {
  if (process.getuid?.() !== 0) return [];
  return [
    'setpriv',
    `--reuid=${USER.uid}`,
    `--regid=${USER.gid}`,
    '--clear-groups',
    '--no-new-privs',
    '--bounding-set=-all',
  ];
}

/** Why no ordinary user can run Node here, or `undefined`: a Node below a home of mode 0700 is root's alone. */
export function nodeOutOfReach(): string | undefined {
  const [program, ...args] = [...asOrdinaryUser(), process.execPath, '--version'];
  try {
    execFileSync(program ?? '', args, { stdio: 'ignore', cwd: '/' });
    return undefined;
  } catch {
    return `an ordinary user cannot run ${process.execPath}`;
  }
}
