import { randomBytes } from 'node:crypto';
import { link, rename, rm, stat, writeFile } from 'node:fs/promises';
import { setTimeout } from 'node:timers/promises';

import { Failure } from './failure.js';
import { LOCK_POLL_MS, LOCK_STALE_MS, LOCK_WAIT_MS } from './limits.js';

/**
 * Does `work` while no other process of this user does work under the same lock. The lock is a file that only one can
 * create; one that is older than {@link LOCK_STALE_MS} was left behind by a process that died.
 * @throws Failure when it cannot be had within {@link LOCK_WAIT_MS}
 */
export async function withFileLock<T>(file: string, work: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + LOCK_WAIT_MS;
  while (!(await create(file))) {
    if (performance.now() > deadline)
      throw new Failure(`Another borectl holds ${file}: remove that file if none runs.`);
    if (await isStale(file)) await removeStale(file);
    else await setTimeout(LOCK_POLL_MS * (0.5 + Math.random()));
  }
  try {
    return await work();
  } finally {
    await rm(file, { force: true });
  }
}

async function create(file: string): Promise<boolean> {
  try {
    await writeFile(file, `${process.pid}\n`, { flag: 'wx', mode: 0o600 });
    return true;
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    throw error;
  }
}

async function isStale(file: string): Promise<boolean> {
  try {
    return Date.now() - (await stat(file)).mtimeMs > LOCK_STALE_MS;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return false;
    throw error;
  }
}

/** Moves the lock away before it goes: between the look and the move somebody else may have removed it and made a new one. */
async function removeStale(file: string): Promise<void> {
  const aside = `${file}.${randomBytes(6).toString('hex')}`;
  try {
    await rename(file, aside);
    // a fresh lock that we have moved by mistake goes back, unless a third has made one since
    if (!(await isStale(aside))) await link(aside, file);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT' && codeOf(error) !== 'EEXIST') throw error;
  } finally {
    await rm(aside, { force: true });
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}
