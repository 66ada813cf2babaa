import type { Socket } from 'node:net';

import { LINGER_MS } from './limits.js';

/**
 * Copies bytes both ways between a visitor and the client's connection for it, until both sides have finished or one
 * breaks. A side that finishes writing (FIN) is finished towards the other, which may go on sending (G5); after that,
 * silence on both for {@link LINGER_MS} ends the stream. A reset on one side is a reset on the other.
 *
 * Both sockets come paused and half-open-able. Memory is bounded by the sockets' own buffers: `pipe` stops reading
 * from one while the other does not take more.
 *
 * @param first bytes of the client that came behind its Accept frame: the beginning of what the visitor will read
 * @param onEnd called once, when both sockets are closed
 */
export function relay(client: Socket, visitor: Socket, first: Buffer, onEnd: () => void): void {
  let open = 2;
  let finished = 0;

  const join = (socket: Socket, other: Socket): void => {
    socket.on('end', () => {
      if (++finished === 1) for (const side of [socket, other]) side.setTimeout(LINGER_MS, () => side.destroy());
    });
    socket.on('error', () => {
      // a reset, or a write after one: the peer did not finish, and the other must not believe that it did
      other.resetAndDestroy();
    });
    socket.on('close', () => {
      // destroyed without FIN both ways (an order, a time-out): nothing more will come of the other either
      if (!socket.readableEnded || !socket.writableFinished) other.destroy();
      if (--open === 0) onEnd();
    });
  };
  join(client, visitor);
  join(visitor, client);

  if (first.length > 0) visitor.write(first);
  client.pipe(visitor);
  visitor.pipe(client);
}
