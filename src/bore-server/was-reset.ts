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

function hasPeerName(handle: unknown): handle is { getpeername(into: object): number } {
  return typeof handle === 'object' && handle !== null && 'getpeername' in handle;
}
