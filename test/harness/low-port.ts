import { randomInt } from 'node:crypto';

import { isPortTaken } from '../../src/local/free-port.js';

/** Between the ports that other suites use and those that the kernel gives to outgoing connections, any of which could be in the way. */
const MIN = 26_000;
const MAX = 32_000;

/** A port for a server that is to come back to it. */
export async function freePortBelow32768(): Promise<number> {
  for (;;) {
    const port = randomInt(MIN, MAX);
    if (!(await isPortTaken(port, '127.0.0.1'))) return port;
  }
}
