/**
 * `npm run load-test -- --users 100 --duration 300 --target https://api.example.com` (docs/load-test.md).
 * Exit code 0: within the thresholds; 1: not, or failed; 2: not understood; 130: interrupted.
 */
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';

import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { z } from 'zod';

import { ApiClient } from '../cli/api-client.js';
import { platformUrl } from '../cli/arguments.js';
import { Failure } from '../cli/failure.js';
import { SECOND_SIGNAL_MS } from '../cli/limits.js';
import { isLoopback } from '../protocol/loopback.js';
import { logIn } from './accounts.js';
import { DURATION_SECONDS_MAX, USERS_MAX } from './limits.js';
import { runLoadTest } from './load-test.js';
import type { Measurements } from './measurements.js';
import { textOf } from './report.js';

/** Where nobody watches, the line of progress is a new one each time. */
const LOG_EVERY_SECONDS = 10;

const Flags = z.object({
  users: z.number(),
  duration: z.number(),
  target: z.string(),
  rampUp: z.number().optional(),
  pace: z.number(),
  json: z.string().optional(),
  prefix: z.string().optional(),
  iOwnThisTarget: z.boolean().default(false),
});
type Flags = z.output<typeof Flags>;

function number(min: number, max: number) {
  return (text: string): number => {
    const value = /^\d{1,9}(\.\d{1,3})?$/.test(text) ? Number(text) : NaN;
    if (!(value >= min && value <= max)) throw new InvalidArgumentError(`It must be a number from ${min} to ${max}.`);
    return value;
  };
}

function whole(min: number, max: number) {
  return (text: string): number => {
    const value = number(min, max)(text);
    if (!Number.isInteger(value)) throw new InvalidArgumentError('It must be a whole number.');
    return value;
  };
}

const command = new Command('load-test')
  .description('Puts a platform under the load of many users, and says how it bears it.')
  .option('--users <n>', 'users at once', whole(1, USERS_MAX), 100)
  .option('--duration <seconds>', 'how long', number(1, DURATION_SECONDS_MAX), 300)
  .option('--target <url>', 'the platform', platformUrl, 'http://127.0.0.1:3000')
  .option(
    '--ramp-up <seconds>',
    'in which the users begin, one after the other (default: a tenth of the duration)',
    number(0, 3_600),
  )
  // 100 users are 40 actions/s then: with their tunnels some 4,000 requests a minute
  .option('--pace <seconds>', 'from one action of a user to the next', number(0.02, 3_600), 2.5)
  .option('--json <file>', 'write the report there too')
  .option(
    '--prefix <name>',
    'use accounts <name>-1@load-test.example … with LOAD_TEST_PASSWORD, made where they are missing',
  )
  .option('--i-own-this-target', 'needed for a target that is not this machine')
  .exitOverride();

function say(line: string): void {
  const { stderr } = process;
  if (stderr.isTTY) stderr.write(`\r\u001b[K${line}`);
  else stderr.write(`${line}\n`);
}

function progressOf({ users, duration }: Flags) {
  let next = LOG_EVERY_SECONDS;
  return (seconds: number, measurements: Measurements): void => {
    if (!process.stderr.isTTY && Math.round(seconds) < next) return;
    next = Math.round(seconds) + LOG_EVERY_SECONDS;
    const { count, failed, p95Ms, p99Ms } = measurements.total();
    const ok = count === 0 ? '–' : (((count - failed) / count) * 100).toFixed(2);
    say(
      `${seconds.toFixed(0)}/${duration} s  ${users} users  ${(count / seconds).toFixed(1)} requests/s  ${ok} % good  P95 ${p95Ms.toFixed(0)} ms  P99 ${p99Ms.toFixed(0)} ms`,
    );
  };
}

async function test(flags: Flags, signal: AbortSignal): Promise<number> {
  const { users, duration, target, rampUp = duration / 10, pace, json, prefix } = flags;
  if (!isLoopback(target) && !flags.iOwnThisTarget) {
    throw new Failure(`${target} is not this machine: give --i-own-this-target if it is yours.`, 2);
  }
  const { LOAD_TEST_PASSWORD } = process.env;
  if (prefix !== undefined && !LOAD_TEST_PASSWORD)
    throw new Failure('--prefix needs the accounts’ password in LOAD_TEST_PASSWORD.', 2);
  const api = new ApiClient(target);
  const logins = await logIn({
    api,
    users,
    prefix: prefix ?? `run-${randomBytes(6).toString('hex')}`,
    password: (prefix !== undefined && LOAD_TEST_PASSWORD) || randomBytes(24).toString('base64url'),
    reuse: prefix !== undefined,
    onLogin: (count) => void (process.stderr.isTTY && say(`${count}/${users} users are logged in`)),
    signal,
  });
  const report = await runLoadTest({
    api,
    logins,
    durationMs: duration * 1_000,
    rampUpMs: rampUp * 1_000,
    paceMs: pace * 1_000,
    onProgress: progressOf(flags),
    signal,
  });
  process.stdout.write(textOf(report));
  if (json !== undefined) await writeFile(json, `${JSON.stringify(report, null, 2)}\n`);
  return report.interrupted ? 130 : report.passed ? 0 : 1;
}

async function run(): Promise<number> {
  const stop = new AbortController();
  let stoppedAt = Infinity;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      // again: whoever presses twice does not want to wait for the cleaning up
      if (performance.now() - stoppedAt > SECOND_SIGNAL_MS) process.exit(130);
      stoppedAt = Math.min(stoppedAt, performance.now());
      stop.abort();
    });
  }
  try {
    command.parse();
    return await test(Flags.parse(command.opts()), stop.signal);
  } catch (error) {
    // commander has printed its own
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (!(error instanceof Failure)) throw error;
    process.stderr.write(`load-test: ${error.message}\n`);
    return error.exitCode;
  }
}

const exitCode = await run();
// what was printed first: a pipe may take it later
await new Promise((resolve) => process.stdout.write('', resolve));
process.exit(exitCode);
