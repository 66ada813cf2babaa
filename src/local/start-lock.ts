import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { beginningOf } from './processes.js';
import { StartError } from './start-settings.js';

/** Losing the race for a stale lock this often means that something is wrong with the folder. */
const ATTEMPTS_MAX = 5;

/** This process's hold on a state folder. */
export interface StartLock {
  /** An earlier start did not end in order: what it started may be ending only now. */
  readonly afterCrash: boolean;
  release(): Promise<void>;
}

/**
 * One `npm start` at a time for a state folder. The lock is a file with the id and the beginning of the process that holds
 * it: one that is gone holds nothing.
 * @throws StartError when another holds it
 */
export async function lockStateDir(stateDir: string): Promise<StartLock> {
  const file = path.join(stateDir, 'running');
  const ours = `${process.pid} ${beginningOf(process.pid)}\n`;
  const draft = `${file}.${process.pid}`;
  let afterCrash = false;
  await writeFile(draft, ours);
  try {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      // a link is made whole or not at all, and never over another file
      if (await succeeds(link(draft, file), 'EEXIST')) {
        return { afterCrash, release: () => rm(file, { force: true }) };
      }
      const held = await readFile(file, 'utf8').catch(() => '');
      const pid = Number.parseInt(held, 10);
      if (pid > 0 && held === `${pid} ${beginningOf(pid)}\n`)
        throw new StartError(`bore-platform runs already (process ${pid}), with its data in ${stateDir}`);
      afterCrash = true;
      // of two that find it stale one gets to move it away; the other finds the winner's lock next time
      if (await succeeds(rename(file, `${draft}.stale`), 'ENOENT')) await rm(`${draft}.stale`, { force: true });
    }
  } finally {
    await rm(draft, { force: true });
  }
  throw new StartError(`${file} cannot be taken: another start is under way`);
}

async function succeeds(work: Promise<void>, expectedCode: string): Promise<boolean> {
  try {
    await work;
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === expectedCode) return false;
    throw error;
  }
}
