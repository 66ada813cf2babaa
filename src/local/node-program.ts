import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { z } from 'zod';

import type { LogFile } from './log-file.js';
import { StartError } from './start-settings.js';

/** Both programs are ready in 2 s here; a machine that swaps may take longer. */
const READY_TIMEOUT_MS = 60_000;
/** How long one answer of a health check may take. */
const ANSWER_TIMEOUT_MS = 2_000;
/** Longer than the programs' own limit for ending in order, 10 s. */
const STOP_TIMEOUT_MS = 12_000;

const DIST = new URL('..', import.meta.url);
const EXIT_WITH_PARENT = new URL('exit-with-parent.js', import.meta.url);

/** What of a log line we show; other lines are shown as they are. */
const LogLine = z.object({ level: z.string(), msg: z.string(), err: z.object({ message: z.string() }).optional() });

/** What follows the reason when Node ends a program for an error that nobody caught. */
const STACK_LINE = /^\s+at |^Node\.js v|^[\s{}]*$/;

interface NodeProgramOptions {
  /** As the user knows it. */
  readonly name: string;
  /** Below `dist`. */
  readonly script: string;
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  readonly log: LogFile;
  /** Takes errors, each a short line. */
  readonly onError: (text: string) => void;
}

/** One of our own programs as a child, with its log in a file. */
export class NodeProgram {
  private readonly child: ChildProcessByStdio<Writable, Readable, Readable>;
  private lastLine = '';
  /** Resolves when it has ended, with a sentence that says how. */
  readonly ended: Promise<string>;

  /** Starts it. */
  constructor(private readonly options: NodeProgramOptions) {
    const { name, script, env, cwd } = options;
    this.child = spawn(
      process.execPath,
      ['--import', EXIT_WITH_PARENT.href, fileURLToPath(new URL(script, DIST))],
      // a process group of its own: Ctrl-C on the terminal is for the launcher, which ends all in order
      { cwd, env, stdio: ['pipe', 'pipe', 'pipe'], detached: true },
    );
    this.child.stdin.on('error', () => undefined);
    for (const input of [this.child.stdout, this.child.stderr])
      createInterface({ input }).on('line', (line) => this.onLine(line));
    this.ended = once(this.child, 'close').then(
      ([code, signal]) => `${name} ended (${signal ?? `exit code ${code}`})${this.lastLine && `: ${this.lastLine}`}`,
      (error: unknown) => `${name} could not be started: ${String(error)}`,
    );
  }

  /**
   * Resolves when `url` answers 200.
   * @throws StartError when the program ends before, or takes too long
   */
  async ready(url: string, signal: AbortSignal): Promise<void> {
    const deadline = performance.now() + READY_TIMEOUT_MS;
    let ended: string | undefined;
    void this.ended.then((how) => (ended = how));
    while (!(await answersOk(url))) {
      signal.throwIfAborted();
      if (ended !== undefined) throw new StartError(ended);
      if (performance.now() > deadline)
        throw new StartError(`${this.options.name} was not ready after ${READY_TIMEOUT_MS / 1000} s`);
      await sleep(50);
    }
  }

  /** Lets it end in order, within a limit. */
  async stop(): Promise<void> {
    this.child.kill('SIGTERM');
    const timer = setTimeout(() => this.kill(), STOP_TIMEOUT_MS);
    await this.ended;
    clearTimeout(timer);
    this.options.log.close();
  }

  /** Ends it at once. */
  kill(): void {
    this.child.kill('SIGKILL');
  }

  private onLine(line: string): void {
    this.options.log.line(line);
    const entry = LogLine.safeParse(parseJson(line));
    if (!entry.success) {
      if (!STACK_LINE.test(line)) this.lastLine = line;
      this.options.onError(line);
      return;
    }
    const { level, msg, err } = entry.data;
    this.lastLine = err ? `${msg}: ${err.message}` : msg;
    if (level === 'error' || level === 'fatal') this.options.onError(this.lastLine);
  }
}

async function answersOk(url: string): Promise<boolean> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) });
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false; // it does not listen yet
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
