/** What a user's machine does: a local service, a client that carries its tunnel, and a visitor who calls from outside. */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';

import type { OpenedTunnel } from '../cli/api-answers.js';
import { ServerConnection, ServerRefusal } from '../cli/server-connection.js';
import { Visitors } from '../cli/visitors.js';
import { keyOfSecret } from '../protocol/challenge.js';
import { NETWORK_TIMEOUT_MS } from '../protocol/frames.js';
import { REQUEST_MS, TRAFFIC_BYTES } from './limits.js';

/** A service that sends back what it gets; one for all users. */
export async function startEcho(): Promise<{ port: number; close(): void }> {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return { port: portOf(server.address()), close: () => void server.close() };
}

function portOf(address: AddressInfo | string | null): number {
  if (address === null || typeof address === 'string') throw new Error('the local service has no port');
  return address.port;
}

/** Carries a tunnel until `signal`; resolves when the bore-server has granted it. */
export async function carry(tunnel: OpenedTunnel, localPort: number, signal: AbortSignal): Promise<void> {
  const key = keyOfSecret(tunnel.token);
  const visitors = new Visitors({ host: '127.0.0.1', port: localPort }, key, signal);
  const connection = await ServerConnection.open(tunnel, key, { kind: 'hello', port: tunnel.port }, signal);
  const answer = await connection.next(NETWORK_TIMEOUT_MS);
  if (answer.kind === 'error') throw new ServerRefusal(answer.text);
  const listen = async (): Promise<void> => {
    for (;;) {
      const message = await connection.next();
      if (message.kind === 'connection') void visitors.fetch(tunnel, message.id);
    }
  };
  // it ends with its tunnel; whether that was too early is what the visitor notices
  listen().catch(() => connection.socket.destroy());
}

/** One visitor: all that it sends must come back, whole and in order. */
export async function visit({ host, port }: OpenedTunnel): Promise<void> {
  const sent = randomBytes(TRAFFIC_BYTES);
  const socket = net.connect({ host, port, allowHalfOpen: true, noDelay: true });
  const signal = AbortSignal.timeout(REQUEST_MS);
  const abort = (): void => void socket.destroy(new Error('no echo in time'));
  signal.addEventListener('abort', abort);
  try {
    socket.end(sent);
    const hash = createHash('sha256');
    for await (const chunk of socket) if (Buffer.isBuffer(chunk)) hash.update(chunk);
    if (hash.digest('hex') !== createHash('sha256').update(sent).digest('hex'))
      throw new Error('the echo is not what was sent');
  } finally {
    signal.removeEventListener('abort', abort);
    socket.destroy();
  }
}
