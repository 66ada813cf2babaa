import type { Socket } from 'node:net';

import { LINGER_MS } from './limits.js';

const NOTHING = Buffer.alloc(0);

/**
 * Copies bytes both ways between a visitor's stream and the local service until both have finished or one breaks. The
 * end of one side (FIN) is passed on, and the other may go on sending; a reset of one is a reset of the other. `pipe`
 * reads from one only what the other takes, so memory is bounded by the sockets' own buffers.
 *
 * Both sockets come paused and half-open-able.
 *
 * @param first bytes of the visitor that came with the last frame
 */
export function relay(visitor: Socket, local: Socket, first: Buffer): void {
  let finished = 0;
  const join = (socket: Socket, other: Socket): void => {
    socket.on('end', () => {
      if (++finished === 1)
        for (const side of [socket, other]) side.setTimeout(LINGER_MS, () => side.resetAndDestroy());
      passEnd(socket, other);
    });
    // the peer did not finish, and the other must not believe that it did
    socket.on('error', () => void other.resetAndDestroy());
    socket.on('close', () => {
      if (!socket.readableEnded || !socket.writableFinished) other.resetAndDestroy();
    });
    socket.pipe(other, { end: false });
  };
  if (first.length > 0) local.write(first);
  join(visitor, local);
  join(local, visitor);
}

/**
 * Passes on that `from` has finished, unless it was in truth reset: a reset right behind data is an `end` to Node
 * (libuv: a hang-up after a partial read), and the other side would take half an answer for a whole one. To write
 * nothing tells them apart: it fails on a connection that was reset.
 */
function passEnd(from: Socket, to: Socket): void {
  // we have finished towards it ourselves, or bytes are on their way to it that may have to wait: no asking then
  if (!from.writable || from.writableLength > 0) to.end();
  else from.write(NOTHING, (error) => error ?? to.end());
}
