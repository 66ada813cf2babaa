import { setTimeout } from 'node:timers/promises';

import { isPortTaken } from './free-port.js';
import { StartError, type StartSettings } from './start-settings.js';

/** Programs whose launcher was killed have 25 s to finish (see exit-with-parent.ts). */
const LEFTOVERS_TIMEOUT_MS = 30_000;

/** Ports that we are about to listen on. */
export interface WantedPorts {
  readonly host: string;
  readonly min: number;
  /** For a single port, as `min`. */
  readonly max: number;
  /** What chooses others. */
  readonly variable: string;
  /** As the user knows it; the tunnels' have none. */
  readonly what?: string;
}

/** Of `npm start`. */
export function portsOf(settings: StartSettings): WantedPorts[] {
  const { bind, portRange, apiPort, controlPort, adminPort } = settings;
  return [
    onePort('PORT', apiPort, bind, 'the API'),
    onePort('BORE_CONTROL_PORT', controlPort, bind, 'bore clients'),
    onePort('BORE_ADMIN_PORT', adminPort, '127.0.0.1', 'the bore-server’s health and orders'),
    { ...portRange, host: bind, variable: 'BORE_PORT_RANGE' },
  ];
}

/** A single one. */
export function onePort(variable: string, port: number, host: string, what: string): WantedPorts {
  return { host, min: port, max: port, variable, what };
}

/**
 * Checks that nothing listens on any port that we are about to use, the tunnels' included.
 * @param afterCrash what an earlier start left may still be ending: wait for it
 * @param command as the user types it
 * @throws StartError naming the port and the variable that chooses another
 */
export async function checkPorts(
  wanted: readonly WantedPorts[],
  { afterCrash, command, signal }: { afterCrash: boolean; command: string; signal: AbortSignal },
): Promise<void> {
  const deadline = performance.now() + (afterCrash ? LEFTOVERS_TIMEOUT_MS : 0);
  for (;;) {
    const problem = await findProblem(wanted, command);
    if (problem === undefined) return;
    if (performance.now() > deadline) throw new StartError(problem);
    // whose end we wait for is not our child: there is no event
    await setTimeout(100, undefined, { signal });
  }
}

async function findProblem(wanted: readonly WantedPorts[], command: string): Promise<string | undefined> {
  for (const { host, min, max, variable, what } of wanted) {
    for (let port = min; port <= max; port++) {
      if (!(await isTaken(port, host, variable))) continue;
      if (what === undefined)
        return `Port ${port} is among the ports for tunnels, ${min}–${max}, and another program listens on it: end that, or choose other ports (${variable}=${port + 1}:${port + 1 + max - min} ${command})`;
      return `Port ${port} is needed for ${what}, and another program listens on it: end that, or choose another port (${variable}=${port + 1} ${command})`;
    }
  }
  return undefined;
}

async function isTaken(port: number, host: string, variable: string): Promise<boolean> {
  try {
    return await isPortTaken(port, host);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'EACCES')
      throw new StartError(`Port ${port} may not be opened by this user: choose one above 1023 with ${variable}`);
    if (code === 'EADDRNOTAVAIL') throw new StartError(`BORE_LOCAL_BIND: this machine has no address ${host}`);
    throw error;
  }
}
