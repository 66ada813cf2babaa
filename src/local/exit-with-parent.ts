/**
 * Loaded before a program with `node --import`: ends it, in order, when whoever started it is gone.
 *
 * The launcher holds the other end of the program's stdin; the system closes it however the launcher ends, kill -9
 * included. The programs themselves know nothing of this: run by systemd or Kubernetes, with stdin closed, they go on.
 */
import { closeSync, openSync } from 'node:fs';
import { devNull } from 'node:os';
import { isMainThread } from 'node:worker_threads';

/** A backend drains, 10 s by default, and gives its requests 10 s to end; then it goes all the same. */
const END_TIMEOUT_MS = 25_000;

function end(): void {
  // Nobody reads what it says any more, and pino's last flush tries for ever to write to a broken pipe: give it another
  // end. A file that is opened gets the lowest free number, the one just closed.
  for (const descriptor of [1, 2]) {
    closeSync(descriptor);
    openSync(devNull, 'w');
  }
  process.kill(process.pid, 'SIGTERM');
  setTimeout(() => process.exit(1), END_TIMEOUT_MS);
}

// workers load this too, and have no stdin of their own
if (isMainThread) process.stdin.once('close', end).resume().unref();
