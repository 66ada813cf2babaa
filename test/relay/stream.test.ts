import { once } from 'node:events';
import net, { type Socket } from 'node:net';

import { afterEach, expect, it } from 'vitest';

import { Stream } from '../../src/relay/stream.js';
import { endOf, type LocalService, readAll, startService, visit } from '../cli/local-service.js';

const services: LocalService[] = [];

afterEach(() => {
  for (const service of services.splice(0)) service.close();
});

/** A visitor, and the local service's end of its connection, with a relay between. */
async function joined(lingerMs = 60_000): Promise<{ visitor: Socket; local: Socket }> {
  const pair = async (): Promise<[near: Socket, far: Socket]> => {
    let near: Socket | undefined;
    const service = await startService((socket) => (near = socket.pause()));
    services.push(service);
    const far = await visit({ host: '127.0.0.1', port: service.port });
    while (!near) await once(service.server, 'connection');
    return [near, far];
  };
  const [[nearVisitor, visitor], [nearLocal, local]] = [await pair(), await pair()];
  new Stream({
    client: nearVisitor,
    visitor: nearLocal,
    first: Buffer.alloc(0),
    preface: undefined,
    throttle: () => 0,
    idleMs: 0,
    lingerMs,
    count: () => undefined,
    onEnd: () => undefined,
  });
  return { visitor, local };
}

it('passes an end on and lets the other side go on', async () => {
  const { visitor, local } = await joined();
  const heard = readAll(local);
  visitor.end('question');
  expect(await heard).toBe('question');
  const answer = readAll(visitor);
  local.write('long ');
  local.end('answer');
  expect(await answer).toBe('long answer');
});

it('passes a reset on that comes right behind data, which Node calls an end', async () => {
  for (let i = 0; i < 50; i++) {
    const { visitor, local } = await joined();
    const end = endOf(visitor);
    local.write('half an answ');
    local.resetAndDestroy();
    expect(await end).toBe('ECONNRESET');
  }
});

it('passes an end on to a side that does not read at the moment', async () => {
  const { visitor, local } = await joined();
  visitor.pause();
  const chunk = Buffer.alloc(1 << 20);
  // until every buffer on the way is full
  while (local.write(chunk) || (await Promise.race([once(local, 'drain'), stalled(local)]))) continue;
  const heard = readAll(local);
  visitor.end('enough');
  expect(await heard).toBe('enough');
});

it('delivers to the end what a slow reader has not read when the linger time is over', async () => {
  const { visitor, local } = await joined(500);
  visitor.pause();
  const bytes = Buffer.alloc(1_500_000, 'tail ');
  local.on('error', () => undefined).end(bytes);
  await new Promise((resolve) => local.once('close', resolve));
  // all of it is in the kernel's buffers now, and both ends have been silent for longer than the linger time
  const heard = readAll(visitor);
  visitor.resume();
  expect(await heard).toBe(bytes.toString());
});

/** Resolves with false when a socket has not got rid of anything for a while. */
async function stalled(socket: net.Socket): Promise<false> {
  for (let length = -1; length !== socket.writableLength;) {
    length = socket.writableLength;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  return false;
}
