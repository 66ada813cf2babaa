import { setMaxListeners } from 'node:events';

import pLimit from 'p-limit';

import type { ApiClient } from '../cli/api-client.js';
import { listen } from './event-listener.js';
import { CLEAN_UP_AT_ONCE, CLEAN_UP_MS } from './limits.js';
import type { Login } from './login.js';
import { Measurements } from './measurements.js';
import { type Report, reportOf } from './report.js';
import { User } from './user.js';
import { startEcho } from './wire-client.js';

/** Every so many users listen to their events as well. */
const LISTENER_EVERY = 5;

export interface LoadTestOptions {
  readonly api: ApiClient;
  readonly logins: readonly Login[];
  readonly durationMs: number;
  /** The users begin to work one after the other, over this time. */
  readonly rampUpMs: number;
  /** From one action of a user to the next. */
  readonly paceMs: number;
  /** Called every second. */
  readonly onProgress: (seconds: number, measurements: Measurements) => void;
  /** Ends it early. */
  readonly signal: AbortSignal;
}

/** Runs the test, cleans up behind it, and says what it came to. */
export async function runLoadTest(options: LoadTestOptions): Promise<Report> {
  const { api, logins, durationMs, rampUpMs, paceMs, onProgress, signal } = options;
  const measurements = new Measurements();
  const echo = await startEcho();
  const users = logins.map((login) => new User({ api, login, localPort: echo.port, measurements }));
  let events = 0;

  const over = new AbortController();
  const listeners = AbortSignal.any([signal, over.signal]);
  // one of each user that waits for its turn, and some of each stream; Node takes more than ten for a leak
  setMaxListeners(4 * users.length, signal, listeners);
  const startedAt = performance.now();
  const seconds = (): number => (performance.now() - startedAt) / 1_000;
  const progress = setInterval(() => onProgress(seconds(), measurements), 1_000);
  try {
    const listening = logins
      .filter((_, i) => i % LISTENER_EVERY === 0)
      .map((login) => listen(api.url, login, measurements, () => events++, listeners));
    await Promise.all(
      users.map((user, i) =>
        // spread over the pace too, so that they do not act all at once
        user.work(startedAt + (i / users.length) * Math.max(rampUpMs, paceMs), paceMs, startedAt + durationMs, signal),
      ),
    );
    over.abort();
    await Promise.all(listening);
    return reportOf({
      target: api.url,
      users: users.length,
      seconds: seconds(),
      interrupted: signal.aborted,
      events,
      measurements,
    });
  } finally {
    clearInterval(progress);
    over.abort();
    await cleanUp(users);
    echo.close();
  }
}

/** Closes what is open and logs out; gives up after a time, because the platform may be gone. */
async function cleanUp(users: readonly User[]): Promise<void> {
  const limit = pLimit(CLEAN_UP_AT_ONCE);
  const one = async (user: User): Promise<void> => {
    // one that is closed already answers that it is: what matters is that none is open
    await user.closeTunnel().catch(() => undefined);
    await user.logOut().catch(() => undefined);
  };
  const patience = new Promise<void>((resolve) => setTimeout(resolve, CLEAN_UP_MS).unref());
  await Promise.race([Promise.all(users.map((user) => limit(() => one(user)))), patience]);
}
