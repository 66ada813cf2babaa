import { createHash } from 'node:crypto';
import { once } from 'node:events';
import net, { type Server, type Socket } from 'node:net';

import { z } from 'zod';

/** Something that listens on a local port. */
export interface LocalService {
  readonly port: number;
  readonly server: Server;
  close(): void;
}

/** Listens on a port of the loopback address, any free one by default; sockets come half-open-able. */
export async function startService(serve: (socket: Socket) => void, port = 0): Promise<LocalService> {
  const sockets = new Set<Socket>();
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    // a visitor that was cut off: what a test wants to see of it, it looks at itself
    socket.on('error', () => undefined).once('close', () => sockets.delete(socket));
    serve(socket);
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  const close = (): void => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  return { port: z.object({ port: z.int() }).parse(server.address()).port, server, close };
}

/** Connects as a visitor would. */
export async function visit({ host, port }: { host: string; port: number }): Promise<Socket> {
  const socket = net.connect({ host, port, allowHalfOpen: true });
  await once(socket, 'connect');
  // who looks for its end hears of it
  return socket.on('error', () => undefined);
}

/** Everything that a peer sends until it has finished; fails when it is cut off. The socket stays open. */
export async function readAll(socket: Socket): Promise<string> {
  let text = '';
  socket.on('data', (data) => (text += String(data)));
  await once(socket, 'end');
  return text;
}

/**
 * How the connection ended: the code of its error, or `closed`. Answers an end with an end, as most programs do. Node
 * calls a reset right behind data an end: to write nothing tells them apart.
 */
export async function endOf(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    socket.on('end', () => socket.write(Buffer.alloc(0), (error) => error ?? socket.end()));
    socket.on('close', () => resolve('closed'));
    socket.resume();
  });
}

/** Hashes what a peer sends until it has finished; fails when it is cut off. */
export async function hashAll(socket: Socket): Promise<{ hash: string; bytes: number }> {
  const hash = createHash('sha256');
  let bytes = 0;
  socket.on('data', (data: Buffer) => {
    hash.update(data);
    bytes += data.length;
  });
  await once(socket, 'end');
  return { hash: hash.digest('hex'), bytes };
}
