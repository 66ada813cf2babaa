import { once } from 'node:events';
import net, { type Socket } from 'node:net';

/** No stream in a test is silent for this long. */
const SILENCE_MS = 20_000;

/** How a socket ended, as its owner sees it. */
export interface SocketEnd {
  readonly bytes: Buffer;
  readonly how: 'finished' | 'reset';
}

/**
 * Connects; the socket stays open for writing when the peer finishes. Errors are kept for {@link readAll}.
 * @param from source address on the loopback network
 */
export async function connect(address: string, port: number, from = '127.0.0.1'): Promise<Socket> {
  const socket = net.connect({ host: address, port, localAddress: from, allowHalfOpen: true });
  await once(socket, 'connect');
  socket.on('error', () => undefined);
  return socket;
}

/** Whether nobody listens there. */
export async function isRefused(address: string, port: number): Promise<boolean> {
  const socket = net.connect({ host: address, port });
  try {
    await once(socket, 'connect');
    return false;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ECONNREFUSED') return true;
    throw error;
  } finally {
    socket.destroy();
  }
}

/** Everything the peer sends until it finishes or breaks. */
export async function readAll(socket: Socket): Promise<SocketEnd> {
  const chunks: Buffer[] = [];
  // reset before anybody listened
  if (socket.destroyed) return { bytes: Buffer.alloc(0), how: 'reset' };
  socket.setTimeout(SILENCE_MS, () => socket.destroy(new Error('silent')));
  socket.on('data', (chunk: Buffer) => chunks.push(chunk)).resume();
  const how = await new Promise<SocketEnd['how']>((resolve, reject) => {
    socket.once('end', () => resolve('finished'));
    socket.once('error', (error: NodeJS.ErrnoException) =>
      error.message === 'silent' ? reject(error) : resolve('reset'),
    );
    socket.once('close', () => resolve('reset'));
  });
  socket.setTimeout(0);
  return { bytes: Buffer.concat(chunks), how };
}

/** Resolves with exactly the next `length` bytes; what came behind them stays in the socket, which is paused. */
export async function readExactly(socket: Socket, length: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  const onData = (chunk: Buffer): void => void chunks.push(chunk);
  socket.on('data', onData).resume();
  try {
    const signal = AbortSignal.timeout(SILENCE_MS);
    for (let have = 0; have < length;) {
      await once(socket, 'data', { signal });
      have = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
    }
  } finally {
    socket.off('data', onData).pause();
  }
  const bytes = Buffer.concat(chunks);
  if (bytes.length > length) socket.unshift(bytes.subarray(length));
  return bytes.subarray(0, length);
}
