import { setTimeout } from 'node:timers/promises';

import { isPortTaken } from './free-port.js';
import { StartError, type StartSettings } from './start-settings.js';

/** Programs whose launcher was killed have 15 s to finish (see exit-with-parent.ts). */
const LEFTOVERS_TIMEOUT_MS = 20_000;

/**
 * Checks that nothing listens on any port that we are about to use, the tunnels' included.
 * @param afterCrash what an earlier start left may still be ending: wait for it
 * @throws StartError naming the port and the variable that chooses another
 */
export async function checkPorts(settings: StartSettings, afterCrash: boolean, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + (afterCrash ? LEFTOVERS_TIMEOUT_MS : 0);
  for (;;) {
    const problem = await findProblem(settings);
    if (problem === undefined) return;
    if (performance.now() > deadline) throw new StartError(problem);
    // whose end we wait for is not our child: there is no event
    await setTimeout(100, undefined, { signal });
  }
}

async function findProblem(settings: StartSettings): Promise<string | undefined> {
  const { bind, portRange, apiPort, controlPort, adminPort } = settings;
  const wanted = [
    { port: apiPort, host: bind, variable: 'PORT', what: 'the API' },
    { port: controlPort, host: bind, variable: 'BORE_CONTROL_PORT', what: 'bore clients' },
    { port: adminPort, host: '127.0.0.1', variable: 'BORE_ADMIN_PORT', what: 'the bore-server’s health and orders' },
  ];
  for (const { port, host, variable, what } of wanted) {
    if (await isTaken(port, host, variable))
      return `Port ${port} is needed for ${what}, and another program listens on it: end that, or choose another port (${variable}=${port + 1} npm start)`;
  }
  const size = portRange.max - portRange.min + 1;
  for (let port = portRange.min; port <= portRange.max; port++) {
    if (await isTaken(port, bind, 'BORE_PORT_RANGE'))
      return `Port ${port} is among the ports for tunnels, ${portRange.min}–${portRange.max}, and another program listens on it: end that, or choose other ports (BORE_PORT_RANGE=${port + 1}:${port + size} npm start)`;
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
