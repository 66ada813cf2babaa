import type { Socket } from 'node:net';

/**
 * Whether a socket that has just reported its end was in truth reset.
 *
 * libuv reports a reset that arrives together with data as a plain end of the stream (`uv__stream_io`: POLLHUP after a
 * partial read), and passed on as such a truncated stream would look whole. A connection that was reset has no peer any
 * more, while one whose peer has only finished still has; Node offers that question on the handle only. It can be asked
 * while our own side is unfinished: afterwards a proper end leaves no peer either.
 */
export function wasReset(socket: Socket): boolean {
  if (socket.writableEnded) return false;
  const handle: unknown = Reflect.get(socket, '_handle');
  return hasPeerName(handle) && handle.getpeername({}) !== 0;
}

/**
 * Stops reading, from within a read, until the returned function is called. The next read then finds a reset by itself,
 * which is the only way to know of it once our own side has finished (see {@link wasReset}).
 */
export function holdReading(socket: Socket): () => void {
  const handle: unknown = Reflect.get(socket, '_handle');
  if (!canHold(handle) || !handle.reading) return () => undefined;
  // `reading` stays as it is, or Node would start again within the same read
  handle.readStop();
  return () =>
    setImmediate(() => {
      if (!socket.destroyed && handle.reading) handle.readStart();
    });
}

function canHold(handle: unknown): handle is { reading: boolean; readStop(): number; readStart(): number } {
  return typeof handle === 'object' && handle !== null && 'readStop' in handle && 'readStart' in handle;
}

function hasPeerName(handle: unknown): handle is { getpeername(into: object): number } {
  return typeof handle === 'object' && handle !== null && 'getpeername' in handle;
}
