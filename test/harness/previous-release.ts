import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

import { PROJECT_DIR } from '../../src/local/state-folders.js';

const run = promisify(execFile);

/** Where the release is built: some 400 MB, and the next run finds it there. */
const BUILDS = path.join(PROJECT_DIR, '.cache/releases');
/** Packages, code generation, compiler, on a machine that has other things to do and a slow line. */
export const BUILD_TIMEOUT_MS = 600_000;
/** A list of migrations, or a reason. */
const OUTPUT_BYTES_MAX = 1024 * 1024;

/** A release as git has it. */
export interface Release {
  /** Its tag, or what `PREVIOUS_RELEASE` says. */
  readonly name: string;
  readonly commit: string;
}

/** What was released last before this commit, or why there is nothing to compare with. `PREVIOUS_RELEASE` names another commit. */
export async function previousRelease(): Promise<Release | { readonly missing: string }> {
  const asked = process.env['PREVIOUS_RELEASE'];
  const name = asked ?? (await lastTag());
  if (name === undefined)
    return {
      missing: 'no earlier release: git knows no tag v* before this commit (PREVIOUS_RELEASE=<commit> names one)',
    };
  return { name, commit: await git('rev-parse', '--verify', '--end-of-options', `${name}^{commit}`) };
}

/** Names of the folders below prisma/migrations that the release has. */
export async function migrationsOf({ commit }: Release): Promise<string[]> {
  const listed = await git('ls-tree', '--name-only', commit, 'prisma/migrations/');
  return listed.split('\n').map((each) => path.basename(each));
}

/** The release in a folder of its own, installed by its own lock file and built: its `dist` is there. */
export async function buildRelease({ commit }: Release): Promise<string> {
  const folder = path.join(BUILDS, commit);
  await mkdir(BUILDS, { recursive: true });
  const present = await readdir(BUILDS);
  if (!present.includes(commit)) {
    // of one release at a time
    for (const other of present) await rm(path.join(BUILDS, other), { recursive: true });
    const unpacked = await mkdtemp(path.join(BUILDS, 'unpacking-'));
    const archive = path.join(unpacked, '.archive.tar');
    await git('archive', '--output', archive, commit);
    await run('tar', ['-xf', archive, '-C', unpacked]);
    await rm(archive);
    await rename(unpacked, folder);
  }
  // does nothing where everything is there already
  await run(process.execPath, ['scripts/prepare.mjs'], {
    cwd: folder,
    timeout: BUILD_TIMEOUT_MS,
    maxBuffer: OUTPUT_BYTES_MAX,
  });
  return folder;
}

/** HEAD^: on the very commit of a release, the one before it is meant. */
async function lastTag(): Promise<string | undefined> {
  try {
    return await git('describe', '--tags', '--abbrev=0', '--match', 'v[0-9]*', 'HEAD^');
  } catch {
    return undefined; // no tag, no commit before this one, or no repository at all
  }
}

async function git(...args: string[]): Promise<string> {
  const { stdout } = await run('git', args, { cwd: PROJECT_DIR, maxBuffer: OUTPUT_BYTES_MAX });
  return stdout.trim();
}
