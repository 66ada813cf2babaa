import { type ChildProcess, type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';

/** Output kept for failure messages and assertions; a process that says more than this is broken. */
const OUTPUT_CHARS_MAX = 20_000_000;
/** Until a process has said that it is ready: some seconds of CPU, of which a busy machine gives it a part. */
const READY_TIMEOUT_MS = 90_000;
/** Until a process that was told to stop is gone. */
const STOP_TIMEOUT_MS = 15_000;

/** Those that run: none outlives the suite that has started it, however that ends. */
const running = new Set<ChildProcess>();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));

/** A real process of ours under test. */
export class RunningProcess {
  readonly child: ChildProcessByStdio<null, Readable, Readable>;
  private text = '';
  /** It has ended, and all that it wrote has been read: later than `exited()`. */
  private closed = false;

  constructor(command: string, args: readonly string[], env: NodeJS.ProcessEnv, cwd?: string) {
    this.child = spawn(command, [...args], { env, cwd, stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(this.child);
    this.child.on('exit', () => running.delete(this.child));
    this.child.on('close', () => (this.closed = true));
    for (const stream of [this.child.stdout, this.child.stderr]) {
      // a suite may wait for many things at once
      stream
        .setMaxListeners(0)
        .setEncoding('utf8')
        .on('data', (chunk: string) => {
          if (this.text.length < OUTPUT_CHARS_MAX) this.text += chunk;
        });
    }
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error('the process did not start');
    return this.child.pid;
  }

  /** Everything it has written to stdout and stderr. */
  output(): string {
    return this.text;
  }

  exited(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** Resolves when its output holds `text` (for a pattern: matches it). */
  waitFor(text: string | RegExp): Promise<string> {
    const found = () => (typeof text === 'string' ? this.text.includes(text) : text.test(this.text));
    const { stdout, stderr } = this.child;
    return new Promise((resolve, reject) => {
      const settle = (error?: Error) => {
        clearTimeout(timer);
        for (const stream of [stdout, stderr]) stream.off('data', look);
        this.child.off('close', ended);
        if (error) reject(error);
        else resolve(this.text);
      };
      const fail = (what: string) => settle(new Error(`the process ${what} ${text}:\n${this.text.slice(-4000)}`));
      const look = () => {
        if (found()) settle();
      };
      const ended = () => (found() ? settle() : fail('ended without saying'));
      const timer = setTimeout(fail, READY_TIMEOUT_MS, 'did not say');
      for (const stream of [stdout, stderr]) stream.on('data', look);
      this.child.on('close', ended);
      if (found() || this.closed) ended();
    });
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** The exit code, when it has ended; `null` for an end by signal. */
  async exitCode(): Promise<number | null> {
    if (!this.closed) await once(this.child, 'close', { signal: AbortSignal.timeout(READY_TIMEOUT_MS) });
    return this.child.exitCode;
  }

  /** Stops it as an operator would. Fails when it does not stop, or had ended by itself with an error. */
  async stop(): Promise<void> {
    if (!this.closed) {
      const gone = once(this.child, 'close', { signal: AbortSignal.timeout(STOP_TIMEOUT_MS) });
      // one that a failed test has left stopped
      this.child.kill('SIGCONT');
      this.child.kill('SIGTERM');
      await gone.catch(async (cause: unknown) => {
        await this.kill9();
        throw new Error(`the process did not stop:\n${this.text.slice(-4000)}`, { cause });
      });
    }
    if (this.child.exitCode !== 0 && this.child.signalCode !== 'SIGKILL') {
      throw new Error(
        `the process ended with ${this.child.exitCode ?? this.child.signalCode}:\n${this.text.slice(-4000)}`,
      );
    }
    this.checkOutput();
  }

  async kill9(): Promise<void> {
    if (this.closed) return;
    const gone = once(this.child, 'close', { signal: AbortSignal.timeout(STOP_TIMEOUT_MS) });
    this.child.kill('SIGCONT');
    this.child.kill('SIGKILL');
    await gone;
    this.checkOutput();
  }

  /** Looks at all that it has written, when it has ended. */
  protected checkOutput(): void {}
}
