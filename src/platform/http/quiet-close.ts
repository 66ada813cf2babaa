import { setImmediate as nextTurn } from 'node:timers/promises';

import type { FastifyInstance } from 'fastify';

/** So long nobody must have connected: one that does so every few milliseconds is sure to be held by then. */
const QUIET_MS = 20;
/** After that a single turn in which nobody connects must do. */
const PATIENCE_MS = 200;
/** How long a close waits for its moment, and requests for the close: nobody notices. Under more load it comes without. */
const TRY_MS = 250;
/** A turn of the event loop that did next to nothing. */
const SHORT_TURN_MS = 0.5;

/**
 * Closes the listening socket in a moment in which nobody is connecting. Closing it resets the connections that the kernel has made
 * and Node has not seen yet, and a load balancer must not repeat a POST that it has sent on one of them.
 *
 * For that moment requests that come are held: with nothing to do but accept, a turn of the event loop is short, and who has many
 * requests held here (a load balancer that counts them, callers that wait for an answer) connects no more. What comes between the
 * last turn and the close itself, a tenth of a millisecond later, is still lost: so the moment must be a long one, where it can be had.
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
  const began = performance.now();
  let connectedAt = began;
  const notice = (): void => void (connectedAt = performance.now());
  server.on('connection', notice);
  for (let turn = began; turn < began + TRY_MS;) {
    await nextTurn();
    const now = performance.now();
    const wanted = now < began + PATIENCE_MS ? now - QUIET_MS : turn;
    if (connectedAt < wanted && now - turn < SHORT_TURN_MS) break;
    turn = now;
  }
  server.off('connection', notice);
}
