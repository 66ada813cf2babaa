import type { Socket } from 'node:net';

/**
 * Makes a socket tell a reset from an end, whatever it has sent itself.
 *
 * libuv reports a reset that arrives together with data as a plain end (`uv__stream_io`: a hang-up after a partial read,
 * while it is reading). Here reading stops within each read and goes on in the next turn of the loop: that read finds
 * the reset by itself. It needs the handle, which Node does not offer; a witness may, where a program should not.
 *
 * Call it before anything else listens for data. Returns the socket.
 */
export function tellingEnds(socket: Socket): Socket {
  socket.on('data', () => {
    const handle: unknown = Reflect.get(socket, '_handle');
    if (!isReadable(handle) || !handle.reading) return;
    // `reading` stays as it is, or Node would start again within the same read
    handle.readStop();
    setImmediate(() => {
      if (!socket.destroyed && handle.reading) handle.readStart();
    });
  });
  // the listener has set it flowing, which is for the caller to decide
  return socket.pause();
}

function isReadable(handle: unknown): handle is { reading: boolean; readStop(): number; readStart(): number } {
  return typeof handle === 'object' && handle !== null && 'readStop' in handle && 'readStart' in handle;
}
