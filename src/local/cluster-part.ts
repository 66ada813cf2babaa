import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** What ends at once each time must not take the machine's time. */
const RESTART_DELAY_MS = 1_000;

/** A process that runs, and how it ends in order. */
export interface RunningPart {
  readonly process: ChildProcess;
  stop(): Promise<void>;
}

/** One program of a cluster. It can be ended, held and started again while the others go on. */
export class ClusterPart {
  private running: RunningPart | undefined;
  private toldToEnd = false;
  private reportEnd: (how: string) => void = () => undefined;

  /** @param launch starts it; resolves when it is ready, and rejects when it is not, with nothing left */
  constructor(
    /** As the user knows it, and its log is called. */
    readonly name: string,
    private readonly launch: () => Promise<RunningPart>,
  ) {}

  get pid(): number {
    const pid = this.running?.process.pid;
    if (pid === undefined) throw new Error(`${this.name} does not run`);
    return pid;
  }

  /** Resolves when it is ready. */
  async start(): Promise<void> {
    this.toldToEnd = false;
    const running = await this.launch();
    this.running = running;
    const { process: child } = running;
    const gone = (): void => {
      if (this.running === running) this.running = undefined;
      if (!this.toldToEnd) this.reportEnd(`${this.name} ended (${child.signalCode ?? `exit code ${child.exitCode}`})`);
    };
    if (hasEnded(child)) gone();
    else child.once('exit', gone);
  }

  /** Ends it in order. */
  async stop(): Promise<void> {
    // what is paused takes no signal but this
    this.resume();
    this.toldToEnd = true;
    await this.running?.stop();
  }

  /** In order, and at the same place again. */
  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  /** kill -9; resolves when it is gone. */
  async kill(): Promise<void> {
    this.toldToEnd = true;
    const child = this.running?.process;
    if (!child || hasEnded(child)) return;
    const gone = once(child, 'exit');
    signalFamily(child, 'SIGKILL');
    await gone;
  }

  /**
   * Starts it again whenever it ends without having been told to, as systemd would.
   * @param say takes a sentence that says how it ended
   * @returns when it does not start again: why
   */
  async keepRunning(say: (text: string) => void): Promise<string> {
    for (;;) {
      const how = await new Promise<string>((resolve) => (this.reportEnd = resolve));
      say(`${how}: it is started again`);
      await sleep(RESTART_DELAY_MS);
      try {
        if (!this.toldToEnd) await this.start();
      } catch (error) {
        return `${this.name} does not start again: ${error instanceof Error ? error.message : String(error)}`;
      }
    }
  }

  /** Stops every process of it, as a machine that hangs does. */
  pause(): void {
    if (this.running) signalFamily(this.running.process, 'SIGSTOP');
  }

  /** After {@link pause}. */
  resume(): void {
    if (this.running) signalFamily(this.running.process, 'SIGCONT');
  }
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}

/** nginx and PostgreSQL have processes of their own, which would go on. */
function signalFamily(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined || hasEnded(child)) return;
  for (const pid of [child.pid, ...childrenOf(child.pid)]) {
    try {
      process.kill(pid, signal);
    } catch {
      // it has just ended
    }
  }
}

function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
  } catch {
    return []; // no such process, or a system without /proc
  }
}
