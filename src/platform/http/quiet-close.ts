import { setImmediate as nextTurn } from 'node:timers/promises';

import type { FastifyInstance } from 'fastify';

/** How long a close waits for its moment, and requests for the close: nobody notices. Under more load it comes without. */
const TRY_MS = 250;
/** A turn of the event loop that did next to nothing. */
const SHORT_TURN_MS = 0.5;

/**
 * Closes the listening socket in a moment in which nobody is connecting. Closing it resets the connections that the kernel has made
 * and Node has not seen yet, and a load balancer must not repeat a POST that it has sent on one of them.
 *
 * For that moment requests that come are held: with nothing to do but accept, a turn of the event loop is short, and after one that
 * saw no connection there is none.
 */
export function closeQuietly(server: FastifyInstance): void {
  let closed: Promise<void> | undefined;
  server.addHook('onRequest', async () => closed);
  server.addHook('preClose', async () => {
    let release = (): void => undefined;
    closed = new Promise((resolve) => (release = resolve));
    await quietMoment(server);
    // Fastify closes the socket when this hook has ended, and that is in this turn
    setImmediate(release);
  });
}

async function quietMoment({ server }: FastifyInstance): Promise<void> {
  const deadline = performance.now() + TRY_MS;
  let connected = true;
  const notice = (): void => void (connected = true);
  server.on('connection', notice);
  for (let turn = performance.now(); turn < deadline;) {
    connected = false;
    await nextTurn();
    const now = performance.now();
    if (!connected && now - turn < SHORT_TURN_MS) break;
    turn = now;
  }
  server.off('connection', notice);
}
