/** PostgreSQL's own programs. The password goes to them by their environment, never by their command line. */
import { type ChildProcessByStdio, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { promisify } from 'node:util';

import type { DatabaseAddress } from '../platform/database/migrations.js';
import { BackupError, reasonOf } from './backup-error.js';

export type PostgresTool = 'pg_dump' | 'pg_restore' | 'psql';
type RunningTool = ChildProcessByStdio<Writable, Readable, Readable>;

/** It only prints its name. */
const VERSION_TIMEOUT_MS = 10_000;
/** Of what a program says on stderr; the end of it holds the reason. */
const STDERR_CHARS_MAX = 16_384;

/** Where the programs are, and on whose `PATH`. */
export interface ToolsOptions {
  /** Folder of the programs (`PG_BIN_DIR`); not set: as `PATH` finds them. */
  readonly binDir: string | undefined;
  readonly path: string | undefined;
}

/** A program that was started, and what becomes of it. */
export interface ToolRun {
  readonly stdin: Writable;
  readonly stdout: Readable;
  /** Rejects with its last words when it did not end with 0. */
  readonly done: Promise<void>;
  kill(): void;
}

export class PostgresTools {
  constructor(private readonly options: ToolsOptions) {}

  /**
   * Starts a program on a database, or on none.
   * @param signal ends it
   */
  start(tool: PostgresTool, args: readonly string[], signal: AbortSignal, address?: DatabaseAddress): ToolRun {
    const child = spawn(this.program(tool), [...args], { env: this.environment(address), stdio: 'pipe', signal });
    const done = ending(tool, child);
    // whoever waits for it hears of its end; until then nobody may
    done.catch(() => undefined);
    // a reader that is gone says so by its exit code
    child.stdin.on('error', () => undefined);
    return { stdin: child.stdin, stdout: child.stdout, done, kill: () => void child.kill('SIGKILL') };
  }

  /**
   * The major version of a program.
   * @throws BackupError when it is not installed
   */
  async major(tool: PostgresTool): Promise<number> {
    const run = promisify(execFile);
    const { stdout } = await run(this.program(tool), ['--version'], {
      env: this.environment(),
      timeout: VERSION_TIMEOUT_MS,
    }).catch((cause: unknown) => {
      throw new BackupError(
        `${this.program(tool)} cannot be run: install PostgreSQL’s client programs, or name their folder in PG_BIN_DIR`,
        { cause },
      );
    });
    const major = /\(PostgreSQL\) (\d+)/.exec(stdout)?.[1];
    if (major === undefined) throw new BackupError(`${this.program(tool)} does not say its version`);
    return Number(major);
  }

  private program(tool: PostgresTool): string {
    return this.options.binDir === undefined ? tool : path.join(this.options.binDir, tool);
  }

  private environment(address?: DatabaseAddress): NodeJS.ProcessEnv {
    return {
      PATH: this.options.path,
      // we read what they say
      LC_ALL: 'C',
      ...(address && {
        PGHOST: address.host,
        PGPORT: String(address.port),
        PGDATABASE: address.database,
        PGUSER: address.user,
        PGPASSWORD: address.password,
        PGAPPNAME: 'bore-backup',
        PGCONNECT_TIMEOUT: '10',
      }),
    };
  }
}

async function ending(tool: PostgresTool, child: RunningTool): Promise<void> {
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-STDERR_CHARS_MAX);
  });
  try {
    // `close`, not `exit`: its last words must have been read
    await once(child, 'close');
  } catch (cause) {
    throw new BackupError(`${tool}: ${reasonOf(cause)}`, { cause });
  }
  if (child.exitCode === 0) return;
  throw new BackupError(`${tool}: ${lastWords(said) ?? `it ended with ${child.exitCode ?? child.signalCode}`}`);
}

function lastWords(said: string): string | undefined {
  const lines = said.split('\n').filter((line) => line.trim() !== '');
  return (lines.find((line) => /(error|FATAL|ERROR):/.test(line)) ?? lines.at(-1))?.replace(
    /^.*?(error|FATAL|ERROR):\s*/,
    '',
  );
}
