import type { Socket } from 'node:net';

import { HANDSHAKE_MS } from './limits.js';
import { type Networks, unmapped } from './networks.js';
import { parseProxyHeader, ProxyHeaderError } from './proxy-header.js';

/** Where a connection comes from, as far as it can be known. */
export interface Origin {
  readonly address: string;
  readonly port: number;
}

/** The other end of a socket; `undefined` when it was reset before it could be asked. */
export function originOf({ remoteAddress, remotePort }: Socket): Origin | undefined {
  return remoteAddress === undefined ? undefined : { address: unmapped(remoteAddress), port: remotePort ?? 0 };
}

/**
 * Finds out where a connection comes from. One from a trusted load balancer must begin with a PROXY protocol header,
 * which is taken off; anybody else's word is not asked for: their first bytes are theirs.
 *
 * The socket comes paused and is left so.
 * @throws ProxyHeaderError when a trusted balancer sends none in time, or none that can be read
 */
export async function findOrigin(socket: Socket, trusted: Networks | undefined): Promise<Origin> {
  const peer = originOf(socket);
  if (!peer) throw new ProxyHeaderError('the connection was reset before it could be asked');
  if (!trusted?.has(peer.address)) return peer;
  let bytes = Buffer.alloc(0);
  const header = await new Promise<NonNullable<ReturnType<typeof parseProxyHeader>>>((resolve, reject) => {
    const finish = (act: () => void): void => {
      clearTimeout(timer);
      socket.off('data', onData).off('end', onEnd).off('close', onEnd).pause();
      act();
    };
    const onData = (chunk: Buffer): void => {
      bytes = Buffer.concat([bytes, chunk]);
      try {
        const parsed = parseProxyHeader(bytes);
        if (parsed) finish(() => resolve(parsed));
      } catch (error) {
        finish(() => reject(error instanceof Error ? error : new ProxyHeaderError(String(error))));
      }
    };
    const onEnd = (): void => finish(() => reject(new ProxyHeaderError('the connection ended before its header')));
    const timer = setTimeout(
      () => finish(() => reject(new ProxyHeaderError('the PROXY protocol header did not come in time'))),
      HANDSHAKE_MS,
    );
    socket.on('data', onData).on('end', onEnd).on('close', onEnd).resume();
  });
  if (bytes.length > header.length) socket.unshift(bytes.subarray(header.length));
  const { connection } = header;
  return connection ? { address: unmapped(connection.sourceAddress), port: connection.sourcePort } : peer;
}
