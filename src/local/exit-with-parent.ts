/**
 * Loaded before a program with `node --import`: ends it, in order, when whoever started it is gone.
 *
 * The launcher holds the other end of the program's stdin; the system closes it however the launcher ends, kill -9
 * included. The programs themselves know nothing of this: run by systemd or Kubernetes, with stdin closed, they go on.
 */
import { isMainThread } from 'node:worker_threads';

/** A backend gives its requests 10 s to end; then it goes all the same. */
const END_TIMEOUT_MS = 15_000;

function end(): void {
  // nobody reads what it says any more
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  process.kill(process.pid, 'SIGTERM');
  setTimeout(() => process.exit(1), END_TIMEOUT_MS);
}

// workers load this too, and have no stdin of their own
if (isMainThread) process.stdin.once('close', end).resume().unref();
