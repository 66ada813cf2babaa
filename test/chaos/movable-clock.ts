import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** A clock of a process's own, which can be moved while it runs (libfaketime). Time that is measured is not moved, only time that is read. */
export class MovableClock {
  constructor(
    private readonly file: string,
    private readonly library: string,
  ) {}

  /** What a process needs to have it. */
  get env(): NodeJS.ProcessEnv {
    return {
      LD_PRELOAD: this.library,
      FAKETIME_TIMESTAMP_FILE: this.file,
      // how long, in seconds, until a jump is noticed
      FAKETIME_CACHE_DURATION: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
    };
  }

  /** @param seconds ahead of the true time */
  async jump(seconds: number): Promise<void> {
    await writeFile(this.file, `+${seconds}s\n`);
  }
}

/** A clock that is right as yet, or `undefined` where libfaketime is not installed. */
export async function findClock(file: string): Promise<MovableClock | undefined> {
  const { stdout } = await run('sh', ['-c', 'ls /usr/lib/*/faketime/libfaketimeMT.so.1']).catch(() => ({ stdout: '' }));
  const library = stdout.trim().split('\n')[0];
  if (library === undefined || library === '') return undefined;
  const clock = new MovableClock(file, library);
  await clock.jump(0);
  return clock;
}
