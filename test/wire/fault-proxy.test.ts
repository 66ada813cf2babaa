/** The proxy that spoils connections for the other tests does what it says, and nothing else. */
import { once } from 'node:events';
import net, { type Socket } from 'node:net';

import { afterEach, beforeEach, expect, it } from 'vitest';

import { expectAtBest } from '../harness/at-best.js';
import { tellingEnds } from '../harness/exact-ends.js';
import { FaultProxy } from '../harness/fault-proxy.js';
import { isRefused, readAll, readExactly } from '../harness/sockets.js';
import { until } from '../harness/until.js';

const MIB = 1024 * 1024;

let server: net.Server;
let proxy: FaultProxy;
const sockets = new Set<Socket>();

beforeEach(async () => {
  server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('a TCP server has no port');
  proxy = await FaultProxy.start({ host: '127.0.0.1', port: address.port });
});

afterEach(async () => {
  await proxy.close();
  server.close();
  for (const socket of sockets) socket.destroy();
  sockets.clear();
  await until(() => proxy.connections === 0, 'nothing is left open');
});

/** Both ends of a connection through the proxy, paused. */
async function joined(): Promise<{ client: Socket; target: Socket }> {
  let target: Socket | undefined;
  server.once('connection', (socket) => (target = socket));
  const client = net.connect({ host: proxy.host, port: proxy.port, allowHalfOpen: true, noDelay: true }).pause();
  await once(client, 'connect');
  const arrived = await until(() => target, 'the target is reached');
  for (const socket of [client, arrived]) {
    sockets.add(socket);
    tellingEnds(socket).on('error', () => undefined);
  }
  return { client, target: arrived };
}

async function timed<T>(work: () => Promise<T>): Promise<{ ms: number; result: T }> {
  const began = performance.now();
  const result = await work();
  return { ms: performance.now() - began, result };
}

/** Writes until nothing more is taken; resolves with how much was written and not taken by the kernel. */
async function fill(socket: Socket): Promise<number> {
  const piece = Buffer.alloc(MIB);
  for (let taken = true; taken;) {
    socket.write(piece);
    taken = await until(() => socket.writableLength === 0, 'the kernel takes it', 1_000).catch(() => false);
  }
  return socket.bytesWritten - socket.writableLength;
}

it('is faithful without toxics: whole bytes, ends one at a time, resets with and without data before them', async () => {
  const one = await joined();
  const big = Buffer.alloc(8 * MIB, 'there and ');
  one.client.end(big);
  const there = await readAll(one.target);
  expect([there.how, there.bytes.equals(big)]).toEqual(['finished', true]);
  one.target.end('and back');
  expect(await readAll(one.client)).toEqual({ how: 'finished', bytes: Buffer.from('and back') });

  for (const said of ['', 'half a sen']) {
    const { client, target } = await joined();
    const heard = readAll(target);
    if (said !== '') client.write(said);
    client.resetAndDestroy();
    expect((await heard).how).toBe('reset');
    // and where the other side has finished before
    const late = await joined();
    late.client.end();
    await readAll(late.target);
    const answer = readAll(late.client);
    if (said !== '') late.target.write(said);
    late.target.resetAndDestroy();
    expect((await answer).how).toBe('reset');
  }
});

it('holds a bounded amount of what is not read', async () => {
  const { client, target } = await joined();
  const written = await fill(client);
  // its own buffer, and the kernel's four
  expect(written).toBeLessThan(40 * MIB);
  client.end();
  expect((await readAll(target)).bytes.length).toBe(client.bytesWritten);
});

it('latency: everything later by the set time ± jitter, in order, pipelined, and gone when switched off', async () => {
  const { client, target } = await joined();
  proxy.set({ latencyMs: 200, jitterMs: 50 }, 'toTarget');
  await expectAtBest(400, async () => {
    client.write('a');
    const { ms } = await timed(() => readExactly(target, 1));
    expect(ms).toBeGreaterThan(140);
    return ms;
  });
  await expectAtBest(600, async () => {
    const many = await timed(async () => {
      for (let i = 0; i < 20; i++) await new Promise((resolve) => client.write(String(i % 10), resolve));
      return readExactly(target, 20);
    });
    expect(many.result.toString()).toBe('01234567890123456789');
    return many.ms;
  });
  await expectAtBest(100, async () => {
    target.write('b');
    return (await timed(() => readExactly(client, 1))).ms;
  });

  proxy.set({ latencyMs: 60_000 });
  client.write('c');
  proxy.heal();
  expect((await timed(() => readExactly(target, 1))).ms).toBeLessThan(1_000);
});

it('refuse, cut, down and accept', async () => {
  const { client, target } = await joined();
  proxy.refuse();
  expect(await isRefused(proxy.host, proxy.port)).toBe(true);
  client.write('still');
  expect((await readExactly(target, 5)).toString()).toBe('still');
  const ends = Promise.all([readAll(client), readAll(target)]);
  proxy.cut();
  expect((await ends).map(({ how }) => how)).toEqual(['finished', 'finished']);
  await proxy.accept();
  const again = await joined();
  proxy.down();
  expect((await readAll(again.client)).how).toBe('finished');
  expect(await isRefused(proxy.host, proxy.port)).toBe(true);
});

it('reset: both sides, at once', async () => {
  const { client, target } = await joined();
  client.write('x');
  await readExactly(target, 1);
  const ends = Promise.all([readAll(client), readAll(target)]);
  proxy.reset();
  expect((await ends).map(({ how }) => how)).toEqual(['reset', 'reset']);
});

it('slow close: data at once, the end later', async () => {
  proxy.set({ slowCloseMs: 300 });
  await expectAtBest(200, async () => {
    const { client, target } = await joined();
    const began = performance.now();
    client.end('data');
    const said = await timed(() => readExactly(target, 4));
    expect((await readAll(target)).how).toBe('finished');
    expect(performance.now() - began).toBeGreaterThan(290);
    return said.ms;
  });
});

it('bandwidth: the set rate within a tenth, each way by itself', async () => {
  proxy.set({ bytesPerSecond: MIB }, 'toTarget');
  await expectAtBest(1, async () => {
    const { client, target } = await joined();
    client.end(Buffer.alloc(MIB));
    target.end(Buffer.alloc(8 * MIB));
    const [up, down] = await Promise.all([timed(() => readAll(target)), timed(() => readAll(client))]);
    expect([up.result.bytes.length, down.result.bytes.length]).toEqual([MIB, 8 * MIB]);
    expect(up.ms).toBeGreaterThan(900);
    // a part of what each way may take
    return Math.max(up.ms / 1_200, down.ms / 800);
  });
});

it('slicer: one byte a read, or n', async () => {
  for (const sliceBytes of [1, 7]) {
    const { client, target } = await joined();
    // as many slices, whatever their size
    const said = 'a sentence in slices, of one byte'.repeat(sliceBytes);
    proxy.set({ sliceBytes, sliceDelayMs: 10 });
    const reads: number[] = [];
    target.on('data', (chunk: Buffer) => reads.push(chunk.length));
    client.end(said);
    expect((await readAll(target)).bytes.toString()).toBe(said);
    // on a busy machine two slices may be read at once
    expect(reads.filter((length) => length <= sliceBytes).length).toBeGreaterThan(reads.length * 0.7);
    expect(reads.length).toBeGreaterThan(33 * 0.7);
  }
});

it('swallow: taken and never delivered, either way; the other way goes on', async () => {
  const { client, target } = await joined();
  for (const [direction, from, to] of [
    ['toTarget', client, target],
    ['toClient', target, client],
  ] as const) {
    proxy.set({ swallow: true }, direction);
    const before = proxy.swallowedBytes;
    from.write(Buffer.alloc(4 * MIB, 'lost'));
    to.write('heard');
    expect((await readExactly(from, 5)).toString()).toBe('heard');
    await until(() => proxy.swallowedBytes - before === 4 * MIB, 'everything was taken');
    proxy.set({ swallow: false }, direction);
    from.write('found');
    expect((await readExactly(to, 5)).toString()).toBe('found');
  }
  proxy.set({ swallow: true });
  const { client: other, target: deaf } = await joined();
  let heard = false;
  deaf.on('data', () => (heard = true)).on('end', () => (heard = true));
  deaf.on('close', () => (heard = true)).resume();
  other.write('x');
  other.resetAndDestroy();
  await until(() => other.closed, 'it is gone');
  expect(heard).toBe(false);
});

it('limit: over after exactly so many bytes, closed or reset', async () => {
  for (const [how, end] of [
    ['close', 'finished'],
    ['reset', 'reset'],
  ] as const) {
    proxy.set({ limit: { bytes: 100_000, how } }, 'toClient');
    const { client, target } = await joined();
    target.write(Buffer.alloc(MIB));
    const heard = await readAll(client);
    expect(heard.how).toBe(end);
    if (how === 'close') expect(heard.bytes.length).toBe(100_000);
    else expect(heard.bytes.length).toBeLessThanOrEqual(100_000);
  }
});
