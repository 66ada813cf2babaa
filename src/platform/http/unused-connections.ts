import type { Socket } from 'node:net';

import type { FastifyInstance } from 'fastify';

/** For a request that was under way when we stopped listening; over a network a round trip takes a fraction of it. */
const LAST_REQUEST_MS = 1_000;

/**
 * When the server closes, ends the connections that carry no request: a browser's that it opened in advance, one on which half
 * a request has come. Node closes only those that have had a whole one, and stops looking for the others' time-outs, so that a
 * single one would hold up the end of the process.
 */
export function endUnusedConnections(server: FastifyInstance): void {
  const unused = new Set<Socket>();
  let closing = false;
  server.server.on('connection', (socket) => {
    unused.add(socket);
    socket.once('close', () => unused.delete(socket));
    if (closing) endLater(socket);
  });
  server.server.on('upgrade', (_request, socket: Socket) => unused.delete(socket));
  server.server.on('request', ({ socket }, response) => {
    unused.delete(socket);
    response.once('close', () => {
      if (socket.destroyed) return;
      unused.add(socket);
      if (closing) endLater(socket);
    });
  });
  const endLater = (socket: Socket): void => {
    setTimeout(() => {
      if (unused.has(socket)) socket.destroy();
    }, LAST_REQUEST_MS);
  };
  server.addHook('preClose', async () => {
    closing = true;
    unused.forEach(endLater);
  });
}
