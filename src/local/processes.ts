/** What the system knows about a process that is not our child. Works without `ps` where there is `/proc`. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** A process that is gone answers at once, and one that is there in milliseconds. */
const PS_TIMEOUT_MS = 5_000;

/** The command line of a process; empty when there is none of that id. */
export function commandLineOf(pid: number): string {
  return readProc(pid, 'cmdline')?.replaceAll('\0', ' ').trim() ?? ps(pid, 'args=');
}

/**
 * When a process began, in whatever unit the system has; empty when there is none of that id. A process id is used again
 * after a restart of the machine: id and beginning together name one process.
 */
export function beginningOf(pid: number): string {
  const stat = readProc(pid, 'stat');
  // the name in field 2 may hold spaces and brackets: count from its end. Field 22 is the start time
  return stat === undefined ? ps(pid, 'lstart=') : (stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '');
}

/** `undefined` where there is no `/proc`. */
function readProc(pid: number, file: string): string | undefined {
  if (process.platform !== 'linux') return undefined;
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return ''; // no such process, or none that we may look at
  }
}

function ps(pid: number, column: string): string {
  try {
    return execFileSync('ps', ['-o', column, '-p', String(pid)], {
      encoding: 'utf8',
      timeout: PS_TIMEOUT_MS,
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return ''; // ps exits 1 when there is no such process
  }
}
