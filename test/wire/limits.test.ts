import type { Socket } from 'node:net';

import { afterEach, describe, expect, it } from 'vitest';

import { expectAtBest } from '../harness/at-best.js';
import { type BoreServerProcess, startBoreServer } from '../harness/bore-server.js';
import { connect, readAll } from '../harness/sockets.js';
import { until } from '../harness/until.js';
import { CarryingClient, hello, WireClient } from '../harness/wire-client.js';

const ADDRESS = '127.0.2.8';
const SECRET = 'limits';

/** Stand-alone: what is limited here is limited whoever authorises. */
const servers: BoreServerProcess[] = [];
const sockets: Socket[] = [];

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const server of servers.splice(0)) await server.stop();
});

async function start(env: NodeJS.ProcessEnv): Promise<BoreServerProcess> {
  const server = await startBoreServer({ secret: SECRET, ports: { min: 10_000, max: 10_009 }, address: ADDRESS, env });
  servers.push(server);
  return server;
}

async function carry(server: BoreServerProcess, port: number, onStream: (stream: Socket) => void) {
  const client = await CarryingClient.start(server, SECRET, port, (stream) => {
    stream.on('error', () => undefined);
    sockets.push(stream);
    onStream(stream);
  });
  sockets.push(client.control.socket);
  return client;
}

async function visit(port: number, from = '127.0.0.1'): Promise<Socket> {
  const visitor = await connect(ADDRESS, port, from);
  sockets.push(visitor);
  return visitor;
}

/** Whether a visitor gets a word from the service, or is sent away. */
async function isServed(port: number, from?: string): Promise<boolean> {
  try {
    const visitor = await visit(port, from);
    const first = await Promise.race([
      new Promise<boolean>((resolve) => visitor.once('data', () => resolve(true))),
      new Promise<boolean>((resolve) => visitor.once('close', () => resolve(false))),
    ]);
    return first;
  } catch {
    return false; // reset before it knew that it was connected
  }
}

const greet = (stream: Socket) => void stream.write('welcome');

async function metric(server: BoreServerProcess, name: string): Promise<number> {
  const text = await (await fetch(`${server.adminUrl}/metrics`)).text();
  const line = text.split('\n').find((candidate) => candidate.startsWith(`${name} `));
  return Number(line?.slice(name.length) ?? 0);
}

describe('visitors at once', () => {
  it.each([
    ['BORE_MAX_CONNECTIONS', '5', 5],
    ['BORE_MAX_CONNECTIONS_PER_TUNNEL', '3', 3],
    ['BORE_MAX_CONNECTIONS_PER_SOURCE', '2', 2],
  ])('are limited by %s', async (name, value, expected) => {
    const server = await start({ [name]: value });
    await carry(server, 10_000, greet);
    const served = await Promise.all(Array.from({ length: 8 }, () => isServed(10_000)));
    expect(served.filter(Boolean)).toHaveLength(expected);
    expect(await metric(server, 'bore_server_visitors_total{outcome="limit"}')).toBe(8 - expected);
    // the others are not harmed, and room is room again
    for (const socket of sockets.splice(1)) socket.destroy();
    await until(async () => (await metric(server, 'bore_server_connections')) === 0, 'they have left');
    expect(await isServed(10_000)).toBe(true);
  });

  it('of one source do not crowd out another source', async () => {
    const server = await start({ BORE_MAX_CONNECTIONS_PER_SOURCE: '2' });
    await carry(server, 10_000, greet);
    for (let i = 0; i < 4; i++) await isServed(10_000, '127.0.4.1');
    expect(await isServed(10_000, '127.0.4.1')).toBe(false);
    expect(await isServed(10_000, '127.0.4.2')).toBe(true);
  });

  it('come at a limited rate from one source', async () => {
    const server = await start({ BORE_CONNECTIONS_PER_SECOND_PER_SOURCE: '10' });
    await carry(server, 10_000, greet);
    const served = await Promise.all(Array.from({ length: 40 }, () => isServed(10_000, '127.0.4.1')));
    expect(served.filter(Boolean).length).toBeGreaterThanOrEqual(10);
    expect(served.filter(Boolean).length).toBeLessThanOrEqual(15);
    expect(await isServed(10_000, '127.0.4.2')).toBe(true);
    await until(() => isServed(10_000, '127.0.4.1'), 'the budget has refilled');
  });
});

describe('silence', () => {
  it('ends a stream after the idle time, and not one in which something moves', async () => {
    const server = await start({ BORE_IDLE_SECONDS: '3' });
    await carry(server, 10_000, (stream) => stream.pipe(stream));
    const [silent, busy] = [await visit(10_000), await visit(10_000)];
    const beat = setInterval(() => busy.write('x'), 200);
    let echoes = 0;
    busy.on('data', () => echoes++);
    const began = performance.now();
    expect((await readAll(silent)).how).toBe('reset');
    expect(performance.now() - began).toBeGreaterThan(2_700);
    await until(() => echoes >= 30, 'the busy one goes on for twice as long', 20_000);
    expect(busy.destroyed).toBe(false);
    clearInterval(beat);
  });

  it('ends a half-closed stream after the linger time', async () => {
    const server = await start({ BORE_LINGER_SECONDS: '1' });
    await carry(server, 10_000, greet);
    const visitor = await visit(10_000);
    visitor.end();
    const began = performance.now();
    const { bytes, how } = await readAll(visitor);
    expect(bytes.toString()).toBe('welcome');
    expect(how).toBe('reset');
    expect(performance.now() - began).toBeGreaterThan(900);
    expect(performance.now() - began).toBeLessThan(4_000);
  });
});

describe('a visitor that never reads', () => {
  it('does not grow memory: its service is held back', async () => {
    const server = await start({});
    let sent = 0;
    await carry(server, 10_000, (stream) => {
      const piece = Buffer.alloc(64 * 1024);
      const more = (): void => {
        if (!stream.destroyed) stream.write(piece, () => ((sent += piece.length), setImmediate(more)));
      };
      more();
    });
    // 20 streams of one read of 64 KiB, and what V8 has not collected yet: what is kept for them grows each time
    await expectAtBest(60 * 1024 * 1024, async () => {
      const before = await metric(server, 'process_resident_memory_bytes');
      const sentBefore = sent;
      const visitors = await Promise.all(Array.from({ length: 20 }, () => visit(10_000)));
      for (const visitor of visitors) visitor.pause();
      // it stalls: for a while nothing more is taken from the services
      let last = -1;
      await until(
        async () => {
          const was = last;
          last = sent;
          await metric(server, 'process_resident_memory_bytes');
          return last - sentBefore > 20 * 1024 * 1024 && last === was;
        },
        'the services are held back',
        20_000,
      );
      const grown = (await metric(server, 'process_resident_memory_bytes')) - before;
      process.stdout.write(`20 visitors that never read: ${(grown / 1024 / 1024).toFixed(0)} MiB\n`);
      return grown;
    });
  });
});

describe('bandwidth', () => {
  it('is held within 5 % over 10 s, both directions together; another tunnel is not disturbed', async () => {
    const server = await start({ BORE_BANDWIDTH_MBPS_PER_TUNNEL: '40' });
    const perSecond = (40 * 1e6) / 8;
    const endless = (socket: Socket): void => {
      const piece = Buffer.alloc(64 * 1024);
      const more = (): void => {
        if (!socket.destroyed) socket.write(piece, () => setImmediate(more));
      };
      more();
    };
    /** Bytes that arrive at either end of all streams of a tunnel. */
    const measure = async (port: number, streams: number) => {
      const counter = { bytes: 0 };
      const count = (socket: Socket) => socket.on('data', (chunk: Buffer) => (counter.bytes += chunk.length));
      await carry(server, port, (stream) => {
        count(stream);
        stream.resume();
        endless(stream);
      });
      for (let i = 0; i < streams; i++) {
        const visitor = await visit(port);
        count(visitor);
        endless(visitor);
      }
      return counter;
    };
    const [one, other] = [await measure(10_000, 1), await measure(10_001, 3)];
    // past the burst, and past what the kernel's buffers swallow
    await until(() => Math.min(one.bytes, other.bytes) > 2 * perSecond, 'the rates are reached', 20_000);
    // what a machine that stands still loses is lost
    await expectAtBest(0.05, async () => {
      const from = { at: performance.now(), one: one.bytes, other: other.bytes };
      await until(() => performance.now() - from.at >= 10_000, '10 s', 15_000);
      const seconds = (performance.now() - from.at) / 1000;
      const ratios = [one.bytes - from.one, other.bytes - from.other].map((bytes) => bytes / seconds / perSecond);
      process.stdout.write(`bandwidth against the set rate: ${ratios.map((ratio) => ratio.toFixed(3)).join(', ')}\n`);
      return Math.max(...ratios.map((ratio) => Math.abs(ratio - 1)));
    });
  });
});

describe('a client whose connections are shed', () => {
  it('is not taken for lost, though it has fetched nobody', async () => {
    const server = await start({ BORE_MAX_HANDSHAKES_PER_SOURCE: '2', BORE_WAITING_SECONDS: '1' });
    await carry(server, 10_000, greet);
    const silent = await Promise.all([1, 2].map(() => WireClient.connect(server)));
    for (const { socket } of silent) sockets.push(socket);
    // they are in their handshake
    for (const each of silent) expect((await each.next()).kind).toBe('challenge');
    expect((await readAll(await visit(10_000))).how).toBe('reset');
    expect(await metric(server, 'bore_server_handshakes_total{outcome="shed"}')).toBe(1);
    for (const { socket } of silent) socket.destroy();
    await until(() => isServed(10_000), 'the next visitor is served');
  });
});

describe('a source that keeps failing', () => {
  it('is banned for a while; a source whose client is good is not', async () => {
    const server = await start({ BORE_FAILURES_BEFORE_BAN: '5', BORE_BAN_SECONDS: '2' });
    const answerFrom = async (from: string, secret: string): Promise<string> => {
      try {
        const client = await WireClient.connect(server, from);
        sockets.push(client.socket);
        await client.greet(secret, { kind: 'hello', port: 0 });
        const answer = await client.next();
        return answer.kind === 'error' ? answer.text : answer.kind;
      } catch {
        return 'reset';
      }
    };
    expect(await answerFrom('127.0.4.2', SECRET)).toBe('hello');
    for (const from of ['127.0.4.1', '127.0.4.2']) {
      for (let i = 0; i < 5; i++) expect(await answerFrom(from, 'wrong')).toBe('invalid secret');
    }
    expect(await answerFrom('127.0.4.1', SECRET)).toBe('reset');
    expect(await answerFrom('127.0.4.2', SECRET)).toBe('hello');
    expect(await answerFrom('127.0.4.3', SECRET)).toBe('hello');
    expect(server.output()).toContain('address banned');
    await until(async () => (await answerFrom('127.0.4.1', SECRET)) === 'hello', 'the ban ends');
  });
});

describe('a slow tunnel', () => {
  it('is not idle while it is held back: streams that wait for their share are not cut', async () => {
    const server = await start({
      BORE_BANDWIDTH_MBPS_PER_TUNNEL: '1',
      BORE_IDLE_SECONDS: '3',
      BORE_LINGER_SECONDS: '3',
    });
    await carry(server, 10_000, (stream) => {
      // half of them are uploads, half are downloads to who has finished
      stream.resume().once('end', () => stream.end(Buffer.alloc(100_000)));
    });
    const ends = await Promise.all(
      Array.from({ length: 8 }, async () => {
        const visitor = await visit(10_000);
        visitor.end(Buffer.alloc(100_000));
        const { bytes, how } = await readAll(visitor);
        return [bytes.length, how];
      }),
    );
    expect(ends).toEqual(ends.map(() => [100_000, 'finished']));
  });
});

describe('half-open handshakes', () => {
  it('of a few sources that hold all there may be make room for others', async () => {
    const server = await start({ BORE_MAX_HANDSHAKES: '64', BORE_MAX_HANDSHAKES_PER_SOURCE: '16' });
    await carry(server, 10_000, greet);
    for (let source = 1; source <= 4; source++) {
      const silent = await Promise.all(
        Array.from({ length: 16 }, () => WireClient.connect(server, `127.0.4.${source}`)),
      );
      for (const wire of silent) sockets.push(wire.socket);
    }
    const served = await Promise.all(Array.from({ length: 5 }, () => isServed(10_000)));
    expect(served).toEqual(served.map(() => true));
  });

  it('of one source are limited, and do not keep others out', async () => {
    const server = await start({ BORE_MAX_HANDSHAKES_PER_SOURCE: '10' });
    const silent = await Promise.all(
      Array.from({ length: 30 }, () => WireClient.connect(server, '127.0.4.1').catch(() => undefined)),
    );
    for (const wire of silent) if (wire) sockets.push(wire.socket);
    await until(
      async () => (await metric(server, 'bore_server_handshakes_total{outcome="shed"}')) === 20,
      'twenty are shed',
    );
    expect((await hello(server, SECRET, 0)).answer.kind).toBe('hello');
  });
});

describe('draining', () => {
  it('lets streams finish, lets nobody in, says so at once, and ends when the last has left', async () => {
    const server = await start({ BORE_DRAIN_SECONDS: '20' });
    const client = await carry(server, 10_000, (stream) => stream.pipe(stream));
    const visitor = await visit(10_000);
    visitor.write('before');
    await new Promise((resolve) => visitor.once('data', resolve));
    server.signal('SIGTERM');
    await server.waitFor('"msg":"draining"');
    expect((await fetch(`${server.adminUrl}/ready`)).status).toBe(503);
    expect((await fetch(`${server.adminUrl}/health`)).status).toBe(200);
    expect(await isServed(10_000)).toBe(false);
    expect((await hello(server, SECRET, 0)).answer).toEqual({ kind: 'error', text: 'server is stopping' });
    visitor.end('and after');
    const { bytes, how } = await readAll(visitor);
    expect([bytes.toString(), how]).toEqual(['and after', 'finished']);
    expect(await client.over).toBe('server is stopping');
    expect(await server.exitCode()).toBe(0);
  });

  it('ends after its grace time, and at once with a second signal', async () => {
    for (const [grace, signals, atLeastMs] of [
      ['1', 1, 900],
      ['60', 2, 0],
    ] as const) {
      const server = await start({ BORE_DRAIN_SECONDS: grace });
      await carry(server, 10_000, greet);
      const visitor = await visit(10_000);
      await new Promise((resolve) => visitor.once('data', resolve));
      const began = performance.now();
      server.signal('SIGTERM');
      await server.waitFor('"msg":"draining"');
      if (signals === 2) server.signal('SIGTERM');
      expect(await server.exitCode()).toBe(0);
      expect(performance.now() - began).toBeGreaterThan(atLeastMs);
      expect(performance.now() - began).toBeLessThan(5_000);
    }
  });
});

describe('a load balancer that is trusted', () => {
  const header = (source: string) => `PROXY TCP4 ${source} ${ADDRESS} 4711 10000\r\n`;

  it('says who its connections are from, on both ports; nobody else is believed', async () => {
    const server = await start({
      BORE_PROXY_PROTOCOL_FROM: '127.0.5.0/24',
      BORE_MAX_CONNECTIONS_PER_SOURCE: '1',
    });
    const control = await WireClient.connect(server, '127.0.5.1');
    sockets.push(control.socket);
    control.send(header('203.0.113.7'));
    await control.greet(SECRET, { kind: 'hello', port: 10_000 });
    expect(await control.next()).toEqual({ kind: 'hello', port: 10_000 });
    await server.waitFor('"clientAddress":"203.0.113.7"');

    const seen: string[] = [];
    await carry(server, 10_001, (stream) => stream.on('data', (chunk: Buffer) => seen.push(chunk.toString())).resume());
    for (const source of ['198.51.100.1', '198.51.100.2']) {
      const visitor = await visit(10_001, '127.0.5.1');
      visitor.write(`${header(source)}from ${source}`);
    }
    await until(() => seen.length === 2, 'two visitors of two sources, through one balancer');
    expect(seen.sort()).toEqual(['from 198.51.100.1', 'from 198.51.100.2']);
    const again = await visit(10_001, '127.0.5.1');
    again.write(header('198.51.100.1'));
    expect((await readAll(again)).how).toBe('reset');

    const impostor = await visit(10_001, '127.0.6.1');
    impostor.write(header('198.51.100.9'));
    await until(() => seen.length === 3, 'the impostor is a visitor like others');
    expect(seen[2]).toBe(header('198.51.100.9'));
  });

  it('is cut off when it sends no header', async () => {
    const server = await start({ BORE_PROXY_PROTOCOL_FROM: '127.0.5.1/32' });
    await carry(server, 10_001, greet);
    const [silent, wrong] = [await visit(10_001, '127.0.5.1'), await visit(10_001, '127.0.5.1')];
    wrong.write('GET / HTTP/1.1\r\n\r\n');
    const began = performance.now();
    expect((await readAll(wrong)).how).toBe('reset');
    expect(performance.now() - began).toBeLessThan(1_000);
    expect((await readAll(silent)).how).toBe('reset');
    expect(performance.now() - began).toBeLessThan(5_000);
  });
});
