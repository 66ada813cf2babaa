/** `npm start`: the whole platform on this machine, until Ctrl-C. */
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { loadEnvFile } from 'node:process';

import { freePort, isPortTaken } from './free-port.js';
import { Platform } from './platform.js';
import { PostgresStartError } from './postgres-binaries.js';
import { lockStateDir, type StartLock } from './start-lock.js';
import { readyMessage } from './start-message.js';
import { checkPorts } from './start-ports.js';
import { newSecrets, readSecrets, type Secrets, writeSecrets } from './start-secrets.js';
import { readStartSettings, StartError } from './start-settings.js';
import { STATE_DIR } from './state-folders.js';
import { stopOnSignals } from './stop-signals.js';

const LOG_DIR = path.join(STATE_DIR, 'logs');
/** There once the administrator's password has been shown. */
const PASSWORD_SHOWN = path.join(STATE_DIR, 'password-shown');

const say = (text: string): void => void process.stdout.write(`${text}\n`);

/** Runs the platform and returns the exit code. */
async function run(): Promise<number> {
  const settings = readStartSettings(process.env);
  let platform: Platform | undefined;
  const stop = stopOnSignals(() => {
    platform?.kill();
    process.exit(1);
  });
  const lock = await prepareStateDir();
  try {
    await checkPorts(settings, lock.afterCrash, stop);
    const secrets = await secretsOfThisStart();
    say('Starting PostgreSQL, the backend and a bore-server …');
    platform = new Platform({
      settings,
      secrets,
      stateDir: STATE_DIR,
      logDir: LOG_DIR,
      environment: process.env,
      signal: stop,
      say,
    });
    await platform.start();
    const withPassword = !existsSync(PASSWORD_SHOWN);
    process.stdout.write(readyMessage({ settings, secrets, stateDir: STATE_DIR, logDir: LOG_DIR, withPassword }));
    if (withPassword) await writeFile(PASSWORD_SHOWN, '');
    const failure = await Promise.race([platform.ended(), aborted(stop)]);
    if (failure === undefined) return 0;
    throw new StartError(`${failure}\nEverything else is being stopped. The logs are in ${LOG_DIR}`);
  } catch (error) {
    // Ctrl-C while it starts: whatever failed then, failed because of that
    if (stop.aborted) return 0;
    process.stderr.write(`${sentenceOf(error)}\n`);
    return 1;
  } finally {
    if (stop.aborted) say('Stopping …');
    await platform?.stop();
    await lock.release();
  }
}

async function prepareStateDir(): Promise<StartLock> {
  // folders that PostgreSQL's user must pass; what is secret has its own mode
  process.umask(0o022);
  await mkdir(STATE_DIR, { recursive: true, mode: process.getuid?.() === 0 ? 0o755 : 0o700 });
  const lock = await lockStateDir(STATE_DIR);
  await mkdir(LOG_DIR, { recursive: true, mode: 0o700 });
  return lock;
}

/** Those of the first start, with a database port that is free now. */
async function secretsOfThisStart(): Promise<Secrets> {
  const known = await readSecrets(STATE_DIR);
  if (known && !(await isPortTaken(known.DB_PORT, '127.0.0.1'))) return known;
  const port = await freePort();
  const secrets = known ? { ...known, DB_PORT: port } : newSecrets(port);
  await writeSecrets(STATE_DIR, secrets);
  return secrets;
}

async function aborted(signal: AbortSignal): Promise<undefined> {
  if (signal.aborted) return;
  await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
}

/** What the user reads; only what we did not expect comes with its stack. */
function sentenceOf(error: unknown): string {
  if (error instanceof StartError || error instanceof PostgresStartError) return error.message;
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  if (/ENOSPC|EDQUOT|No space left on device/.test(text)) return `The disk is full: ${STATE_DIR} cannot be written`;
  if (/EACCES|EPERM|EROFS/.test(text))
    return `This user may not write in ${STATE_DIR}: BORE_STATE_DIR names another folder`;
  return `bore-platform could not start: ${text}`;
}

// whoever reads our output may go before us
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
if (existsSync('.env')) loadEnvFile('.env');
let exitCode = 1;
try {
  exitCode = await run();
} catch (error) {
  process.stderr.write(`${sentenceOf(error)}\n`);
}
process.exit(exitCode);
