import { once } from 'node:events';
import type { Server } from 'node:net';

import { ACCEPT_BACKLOG } from './limits.js';

/** Makes a server listen, for this process alone; resolves with the port. @throws what `listen` fails with */
export async function openPort(server: Server, port: number, address: string): Promise<number> {
  server.listen({ port, host: address, exclusive: true, backlog: ACCEPT_BACKLOG });
  await once(server, 'listening');
  const bound = server.address();
  return typeof bound === 'object' && bound !== null ? bound.port : port;
}
