import { spawnSync } from 'node:child_process';

/** `setpriv` ends in milliseconds. */
const TRY_TIMEOUT_MS = 5_000;

let possible: boolean | undefined;

/**
 * A command line of somebody else's program that the kernel sends `signal` when we are gone, kill -9 included. Only Linux can do
 * it (`setpriv` of util-linux): elsewhere the program stays, and the next start says that its port is taken. Ours end by
 * exit-with-parent.ts everywhere.
 */
export function diesWithUs(
  signal: 'TERM' | 'INT',
  command: readonly [program: string, ...args: string[]],
): [program: string, ...args: string[]] {
  // busybox has a setpriv without it
  possible ??= spawnSync('setpriv', ['--pdeathsig', 'TERM', 'true'], { timeout: TRY_TIMEOUT_MS }).status === 0;
  return possible ? ['setpriv', '--pdeathsig', signal, '--', ...command] : [...command];
}
