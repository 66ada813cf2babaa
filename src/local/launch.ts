import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { loadEnvFile } from 'node:process';

import { PostgresStartError } from './postgres-binaries.js';
import { lockStateDir, type StartLock } from './start-lock.js';
import type { Secrets } from './start-secrets.js';
import { StartError } from './start-settings.js';
import { stopOnSignals } from './stop-signals.js';

/** Something that is started as a whole, and ended so. */
interface Whole {
  /** After a failure, `stop` ends what had been started. */
  start(): Promise<void>;
  /** Resolves when a part of it has ended by itself, with a sentence. */
  ended(): Promise<string>;
  /** Ends everything in order. */
  stop(): Promise<void>;
  /** Ends everything at once. */
  kill(): void;
}

/** Where a whole is made, and until when. */
export interface LaunchPlace {
  readonly secrets: Secrets;
  readonly logDir: string;
  /** Stops starting. */
  readonly signal: AbortSignal;
  /** A line for the user. */
  readonly say: (text: string) => void;
}

interface Launch {
  /** Refuses what cannot work, before anything is started, and says which secrets are used. */
  prepare(lock: StartLock, signal: AbortSignal): Promise<Secrets>;
  /** Without side effects. */
  make(place: LaunchPlace): Whole;
  /** Said while it starts. */
  readonly announcement: string;
  /** Said when it runs. */
  message(secrets: Secrets, shown: { readonly logDir: string; readonly withPassword: boolean }): string;
}

/**
 * A launcher's life: everything is started, and runs until Ctrl-C or until a part of it ends; then all of it is ended in order, and
 * the process with it. `launch` may throw a StartError for a wrong setting.
 */
export async function runLauncher(stateDir: string, launch: () => Launch): Promise<never> {
  // whoever reads our output may go before us
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  let exitCode = 1;
  try {
    if (existsSync('.env')) loadEnvFile('.env');
    exitCode = await run(stateDir, launch());
  } catch (error) {
    process.stderr.write(`${sentenceOf(error, stateDir)}\n`);
  }
  process.exit(exitCode);
}

const say = (text: string): void => void process.stdout.write(`${text}\n`);

/** Returns the exit code. */
async function run(stateDir: string, launch: Launch): Promise<number> {
  const logDir = path.join(stateDir, 'logs');
  /** There once the administrator's password has been shown. */
  const passwordShown = path.join(stateDir, 'password-shown');
  let whole: Whole | undefined;
  const stop = stopOnSignals(() => {
    whole?.kill();
    process.exit(1);
  });
  const lock = await prepareStateDir(stateDir, logDir);
  try {
    const secrets = await launch.prepare(lock, stop);
    say(launch.announcement);
    whole = launch.make({ secrets, logDir, signal: stop, say });
    await whole.start();
    const withPassword = !existsSync(passwordShown);
    process.stdout.write(launch.message(secrets, { logDir, withPassword }));
    if (withPassword) await writeFile(passwordShown, '');
    const failure = await Promise.race([whole.ended(), aborted(stop)]);
    if (failure === undefined) return 0;
    throw new StartError(`${failure}\nEverything else is being stopped. The logs are in ${logDir}`);
  } catch (error) {
    // Ctrl-C while it starts: whatever failed then, failed because of that
    if (stop.aborted) return 0;
    process.stderr.write(`${sentenceOf(error, stateDir)}\n`);
    return 1;
  } finally {
    if (stop.aborted) say('Stopping …');
    await whole?.stop();
    await lock.release();
  }
}

async function prepareStateDir(stateDir: string, logDir: string): Promise<StartLock> {
  // folders that PostgreSQL's user must pass; what is secret has its own mode
  process.umask(0o022);
  await mkdir(stateDir, { recursive: true, mode: process.getuid?.() === 0 ? 0o755 : 0o700 });
  const lock = await lockStateDir(stateDir);
  await mkdir(logDir, { recursive: true, mode: 0o700 });
  return lock;
}

async function aborted(signal: AbortSignal): Promise<undefined> {
  if (signal.aborted) return;
  await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
}

/** What the user reads; only what we did not expect comes with its stack. */
function sentenceOf(error: unknown, stateDir: string): string {
  if (error instanceof StartError || error instanceof PostgresStartError) return error.message;
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  if (/ENOSPC|EDQUOT|No space left on device/.test(text)) return `The disk is full: ${stateDir} cannot be written`;
  if (/EACCES|EPERM|EROFS/.test(text))
    return `This user may not write in ${stateDir}: BORE_STATE_DIR names another folder`;
  return `bore-platform could not start: ${text}`;
}
