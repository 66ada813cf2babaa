import { isPortTaken } from '../../src/local/free-port.js';

/**
 * Ports of the tests: below those that Linux gives to outgoing connections (32768 and up), of which the suites open thousands.
 * One that `listen(0)` named can be gone a moment later.
 */
const PORT_MIN = 24_000;
/** Of each worker, so that none is handed out twice at once; the global set-up is worker 0. */
const PORTS_PER_WORKER = 2_500;

const first = PORT_MIN + Number(process.env['VITEST_POOL_ID'] ?? 0) * PORTS_PER_WORKER;
// another place each time: a second run on this machine rarely asks for the same
let next = Math.floor(Math.random() * PORTS_PER_WORKER);

/** The first of `count` consecutive ports that nothing listens on and that no other suite is given. */
export async function ownPort(count = 1, host = '127.0.0.1'): Promise<number> {
  for (let tried = 0; tried < PORTS_PER_WORKER; tried++) {
    if (next + count > PORTS_PER_WORKER) next = 0;
    const min = first + next;
    next += count;
    if (await allFree(min, count, host)) return min;
  }
  throw new Error(`no ${count} free ports from ${first} on`);
}

async function allFree(min: number, count: number, host: string): Promise<boolean> {
  for (let port = min; port < min + count; port++) {
    if (await isPortTaken(port, host)) return false;
  }
  return true;
}
