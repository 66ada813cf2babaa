import { once } from 'node:events';
import net from 'node:net';

/** A port that nothing listened on a moment ago, on the loopback address. */
export async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  await closed(server);
  if (address === null || typeof address === 'string') throw new Error('a TCP server has no port');
  return address.port;
}

/**
 * Whether something listens on a port of this machine already.
 * @throws Error of `listen` when the port cannot be opened for another reason
 */
export async function isPortTaken(port: number, host = '0.0.0.0'): Promise<boolean> {
  const server = net.createServer();
  try {
    server.listen(port, host);
    await once(server, 'listening');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EADDRINUSE') return true;
    throw error;
  }
  await closed(server);
  return false;
}

async function closed(server: net.Server): Promise<void> {
  server.close();
  await once(server, 'close');
}
