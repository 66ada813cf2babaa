import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import path from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';

import { z } from 'zod';

import type { LogFile } from './log-file.js';
import { StartError } from './start-settings.js';
import { PROJECT_DIR } from './state-folders.js';

/** Both programs are ready in 2 s here; a machine that swaps may take longer. */
const READY_TIMEOUT_MS = 60_000;
/** How long one answer of a health check may take. */
const ANSWER_TIMEOUT_MS = 2_000;
/** Longer than the programs' own limit for ending in order, 10 s; a backend's drain comes before it. */
const STOP_TIMEOUT_MS = 12_000;

// what is compiled, also when this is run from `src` by a test
const DIST = path.join(PROJECT_DIR, 'dist');
const EXIT_WITH_PARENT = pathToFileURL(path.join(DIST, 'local/exit-with-parent.js'));

/** What a backend logs of each request. */
const REQUEST_LINE = 'request';
/** What of a log line we show; other lines are shown as they are. */
const LogLine = z.object({ level: z.string(), msg: z.string(), err: z.object({ message: z.string() }).optional() });

/** What follows the reason when Node ends a program for an error that nobody caught. */
const STACK_LINE = /^\s+at |^Node\.js v|^[\s{}]*$/;

interface ProgramOptions {
  /** As the user knows it. */
  readonly name: string;
  readonly command: readonly [program: string, ...args: string[]];
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  readonly log: LogFile;
  /** Takes errors, each a short line; for a program that logs as ours do. */
  readonly onError?: (text: string) => void;
  /** How much longer than ours it may take to end in order. */
  readonly drainMs?: number;
}

/** The command line of one of our own programs. It ends when we are gone. @param script below `dist` */
export function ourProgram(script: string): [program: string, ...args: string[]] {
  return [process.execPath, '--import', EXIT_WITH_PARENT.href, path.join(DIST, script)];
}

/** A program as a child, with its log in a file. */
export class Program {
  readonly process: ChildProcessByStdio<Writable, Readable, Readable>;
  private lastLine = '';
  /** Resolves when it has ended, with a sentence that says how. */
  readonly ended: Promise<string>;

  /** Starts it. */
  constructor(private readonly options: ProgramOptions) {
    const { name, command, env, cwd, log } = options;
    const [program, ...args] = command;
    // a process group of its own: Ctrl-C on the terminal is for the launcher, which ends all in order
    this.process = spawn(program, args, { cwd, env, stdio: ['pipe', 'pipe', 'pipe'], detached: true });
    this.process.stdin.on('error', () => undefined);
    for (const input of [this.process.stdout, this.process.stderr])
      createInterface({ input }).on('line', (line) => this.onLine(line));
    this.ended = once(this.process, 'close').then(
      ([code, signal]) => `${name} ended (${signal ?? `exit code ${code}`})${this.lastLine && `: ${this.lastLine}`}`,
      (error: unknown) => `${name} could not be started: ${String(error)}`,
    );
    void this.ended.then(() => log.close());
  }

  /**
   * Resolves when `url` answers 200.
   * @throws StartError when the program ends before, or takes too long
   */
  ready(url: string, signal: AbortSignal): Promise<void> {
    return this.readyWhen(() => answersOk(url), signal);
  }

  /** The same, when it takes connections. */
  listens(host: string, port: number, signal: AbortSignal): Promise<void> {
    return this.readyWhen(() => takesConnections(host, port), signal);
  }

  private async readyWhen(isReady: () => Promise<boolean>, signal: AbortSignal): Promise<void> {
    const deadline = performance.now() + READY_TIMEOUT_MS;
    let ended: string | undefined;
    void this.ended.then((how) => (ended = how));
    while (!(await isReady())) {
      signal.throwIfAborted();
      if (ended !== undefined) throw new StartError(ended);
      if (performance.now() > deadline)
        throw new StartError(`${this.options.name} was not ready after ${READY_TIMEOUT_MS / 1000} s`);
      await sleep(50);
    }
  }

  /** Lets it end in order, within a limit. */
  async stop(): Promise<void> {
    this.process.kill('SIGTERM');
    const timer = setTimeout(() => this.kill(), STOP_TIMEOUT_MS + (this.options.drainMs ?? 0));
    await this.ended;
    clearTimeout(timer);
  }

  /** Ends it at once. */
  kill(): void {
    this.process.kill('SIGKILL');
  }

  private onLine(line: string): void {
    this.options.log.line(line);
    const entry = LogLine.safeParse(parseJson(line));
    if (!entry.success) {
      if (!STACK_LINE.test(line)) this.lastLine = line;
      this.options.onError?.(line);
      return;
    }
    const { level, msg, err } = entry.data;
    this.lastLine = err ? `${msg}: ${err.message}` : msg;
    // a line for each request says that it failed; why stands in one of its own
    if ((level === 'error' || level === 'fatal') && msg !== REQUEST_LINE) this.options.onError?.(this.lastLine);
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

function takesConnections(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const answer = (taken: boolean): void => {
      socket.destroy();
      resolve(taken);
    };
    const socket = net.connect({ host, port, timeout: ANSWER_TIMEOUT_MS });
    socket.on('connect', () => answer(true));
    socket.on('error', () => answer(false)).on('timeout', () => answer(false));
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
