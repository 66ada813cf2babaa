/** Faults between every pair of processes: client, bore-server, backend, visitor, and the bore-server's disk. */
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';

import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';

import { expectAtBest } from '../harness/at-best.js';
import type { Api } from '../harness/api.js';
import { type BoreServerProcess, newDataDir, startBoreServer } from '../harness/bore-server.js';
import { FaultProxy } from '../harness/fault-proxy.js';
import { HoldingProxy } from '../harness/holding-proxy.js';
import { Platform } from '../harness/platform.js';
import { RunningProcess } from '../harness/running-process.js';
import { connect, isRefused, readAll, readExactly } from '../harness/sockets.js';
import { until } from '../harness/until.js';
import { CarryingClient, hello, WireClient } from '../harness/wire-client.js';

const run = promisify(execFile);

const ADDRESS = '127.0.2.11';
const MIB = 1024 * 1024;

let platform: Platform;
let user: Api;
/** Between the bore-server and the backend. */
let plane: FaultProxy;
/** Between clients and the bore-server. */
let control: FaultProxy;

beforeAll(async () => {
  platform = await Platform.start({ address: ADDRESS, controlPort: 7835, ports: { min: 10_000, max: 10_099 } });
  user = await platform.newUser();
  plane = await FaultProxy.start({ host: '127.0.0.1', port: Number(new URL(platform.backend.url).port) });
  await platform.server.stop();
  platform.server = await startBoreServer({
    backend: platform.backend,
    address: ADDRESS,
    controlPort: 7835,
    ports: { min: 10_000, max: 10_099 },
    dataDir: platform.dataDir,
    env: { BORE_BACKEND_URL: `http://127.0.0.1:${plane.port}` },
  });
  control = await FaultProxy.start({ host: ADDRESS, port: 7835 });
});

afterEach(() => {
  plane?.heal();
  control?.heal();
});

afterAll(async () => {
  await plane?.close();
  await control?.close();
  await platform?.stop();
});

const echo = (stream: Socket): void => {
  stream.on('error', () => undefined);
  stream.pipe(stream);
};
const throughProxy = () => ({ address: '127.0.0.1', controlPort: control.port });

async function echoed(port: number, text: string): Promise<string> {
  const visitor = await connect(ADDRESS, port);
  visitor.end(text);
  return (await readAll(visitor)).bytes.toString();
}

describe('between the bore-server and the backend', () => {
  it('a slow network delays, and a dead one does not stop what is carried or known', async () => {
    const [known, late] = [await platform.open(user), await platform.open(user)];
    plane.set({ latencyMs: 300 });
    const client = await CarryingClient.start(platform.server, known.token, known.port, echo);
    expect(await echoed(known.port, 'slow')).toBe('slow');

    // nothing arrives any more, and nobody is told: neither refused nor reset
    plane.set({ latencyMs: 0, swallow: true });
    await expectAtBest(2_900, async () => {
      const began = performance.now();
      expect((await hello(platform.server, late.token, late.port)).answer.kind).toBe('error');
      return performance.now() - began;
    });
    client.stop();
    const back = await CarryingClient.start(platform.server, known.token, known.port, echo);
    expect(await echoed(known.port, 'known')).toBe('known');

    plane.heal();
    plane.reset();
    await until(
      async () => (await hello(platform.server, late.token, late.port)).answer.kind === 'hello',
      'authorised again',
      20_000,
    );
    await until(async () => (await platform.stateOf(known)) === 'active', 'reconciled');
    back.stop();
  });

  it('calls that are cut off in the middle are made again, and count once', async () => {
    const tunnel = await platform.open(user);
    const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, echo);
    let bytes = 0;
    for (let i = 0; i < 12; i++) {
      const text = 'x'.repeat(1 + i);
      expect(await echoed(tunnel.port, text)).toBe(text);
      bytes += text.length;
      await until(() => plane.connections > 0, 'there is a connection');
      const before = plane.ended;
      // on the way there, and on the way back
      if (i % 2) plane.reset();
      else plane.set({ limit: { bytes: 200, how: 'reset' } }, i % 4 ? 'toTarget' : 'toClient');
      await until(() => plane.ended > before, 'a call is cut off');
      plane.heal();
    }
    const usage = async () => (await user.get(`/api/v1/tunnels/${tunnel.id}/usage`)).body.total;
    await until(
      async () => {
        const { bytesOut, connections } = await usage();
        return connections >= 12 && bytesOut >= bytes;
      },
      'all visitors are in the books',
      20_000,
    );
    expect(await usage()).toEqual({ bytesIn: bytes, bytesOut: bytes, connections: 12 });
    client.stop();
  });
});

describe('a takeover whose grant comes later than a heartbeat that knows of it', () => {
  const AT = '127.0.2.18';
  let proxy: HoldingProxy;
  let server: BoreServerProcess;

  beforeAll(async () => {
    proxy = await HoldingProxy.start(platform.backend.url);
    server = await startBoreServer({
      backend: platform.backend,
      serverId: 'late',
      address: AT,
      ports: { min: 12_000, max: 12_009 },
      env: { BORE_BACKEND_URL: proxy.url, BORE_LOCATION: 'late' },
    });
  });
  afterAll(async () => {
    proxy?.stop();
    await server?.kill9();
  });

  it('is a takeover all the same: who waits for the old client is announced to the new one', async () => {
    const tunnel = await platform.open(user, { location: 'late' });
    const older = await hello(server, tunnel.token, tunnel.port);
    const visitor = await connect(AT, tunnel.port);
    const announced = await older.client.next();
    proxy.hold('/authorize');
    const taking = hello(server, tunnel.token, tunnel.port);
    // the new session is in the books; until it is let in each heartbeat says so
    const told = () =>
      proxy.answered.filter(({ path, text }) => path.endsWith('/heartbeat') && text.includes('superseded'));
    await until(() => told().length >= 2, 'two heartbeats say that the older one is superseded');
    proxy.release();
    const newer = await taking;
    expect(newer.answer).toEqual({ kind: 'hello', port: tunnel.port });
    expect(await older.client.next()).toEqual({
      kind: 'error',
      text: 'taken over by another connection of this tunnel',
    });
    expect(await newer.client.next()).toEqual(announced);
    visitor.destroy();
    newer.client.socket.destroy();
  });
});

describe('between the client and the bore-server', () => {
  it('frames in slices of one byte are frames, and streams arrive whole', async () => {
    const tunnel = await platform.open(user);
    control.set({ sliceBytes: 1 });
    const client = await CarryingClient.start(throughProxy(), tunnel.token, tunnel.port, echo);
    expect(await echoed(tunnel.port, 'in slices of one byte')).toBe('in slices of one byte');
    control.set({ sliceBytes: 1_000, latencyMs: 20, jitterMs: 15 });
    const bytes = randomBytes(2 * MIB);
    const visitor = await connect(ADDRESS, tunnel.port);
    visitor.end(bytes);
    const back = await readAll(visitor);
    expect(createHash('sha256').update(back.bytes).digest('hex')).toBe(
      createHash('sha256').update(bytes).digest('hex'),
    );
    control.heal();
    client.stop();
  });

  it('a reset ends the session and not its streams', async () => {
    const tunnel = await platform.open(user);
    // the control connection through the proxy, the streams around it
    const { client, answer } = await hello(throughProxy(), tunnel.token, tunnel.port);
    expect(answer.kind).toBe('hello');
    const visitor = await connect(ADDRESS, tunnel.port);
    const message = await client.next();
    if (message.kind !== 'connection') throw new Error(message.kind);
    const wire = await WireClient.connect(platform.server);
    await wire.greet(tunnel.token, { kind: 'accept', id: message.id });
    const stream = wire.detach();
    echo(stream);
    visitor.write('carried ');
    expect((await readExactly(visitor, 8)).toString()).toBe('carried ');
    control.reset();
    await until(async () => (await platform.stateOf(tunnel)) === 'offline', 'the session has ended');
    visitor.end('and still');
    expect((await readAll(visitor)).bytes.toString()).toBe('and still');
  });
});

describe('a visitor that is gone before it is seen', () => {
  it('holds up nothing: heartbeats go on, and usage is reported', async () => {
    const tunnel = await platform.open(user);
    const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, echo);
    await Promise.all(
      Array.from({ length: 200 }, async () => {
        const visitor = await connect(ADDRESS, tunnel.port);
        visitor.resetAndDestroy();
      }),
    );
    expect(await echoed(tunnel.port, 'still')).toBe('still');
    const usage = async () => (await user.get(`/api/v1/tunnels/${tunnel.id}/usage`)).body.total;
    await until(async () => (await usage()).bytesIn === 5, 'it is reported');
    client.stop();
  });
});

describe('a client that leaves while it is asked about', () => {
  it('leaves no session behind', async () => {
    const tunnel = await platform.open(user);
    plane.set({ latencyMs: 300 });
    const wire = await WireClient.connect(platform.server);
    await wire.greet(tunnel.token, { kind: 'hello', port: tunnel.port });
    const asked = async () => (await platform.stateOf(tunnel)) === 'active';
    await until(() => wire.socket.writableLength === 0, 'the greeting is sent');
    wire.socket.resetAndDestroy();
    await until(asked, 'the backend has granted it');
    plane.heal();
    // a granted session that nobody carries is given some time to appear
    await until(async () => !(await asked()), 'it is offline', 15_000);
    expect(await isRefused(ADDRESS, tunnel.port)).toBe(true);
  });
});

describe('a client that is there and does nothing', () => {
  it('paused for longer than a visitor waits: it is taken for lost, as if its machine had vanished', async ({
    skip,
  }) => {
    const bore = inject('upstreamBore');
    if ('missing' in bore) return skip(bore.missing);
    const tunnel = await platform.open(user, { localPort: 1 });
    const [, ...args] = tunnel.command.split(' ');
    const client = new RunningProcess(bore.path, args, { PATH: process.env['PATH'] });
    await client.waitFor('listening at');
    client.signal('SIGSTOP');
    const began = performance.now();
    expect((await readAll(await connect(ADDRESS, tunnel.port))).how).toBe('reset');
    expect(performance.now() - began).toBeGreaterThan(9_000);
    expect(performance.now() - began).toBeLessThan(13_000);
    await until(async () => (await platform.stateOf(tunnel)) === 'offline', 'the tunnel is offline');
    expect(await isRefused(ADDRESS, tunnel.port)).toBe(true);
    client.signal('SIGCONT');
    expect(await client.exitCode()).not.toBeNull();
    await client.kill9();
  });

  it('accepts and never sends, or sends a byte now and then: the visitor is kept, at next to no cost', async () => {
    const tunnel = await platform.open(user);
    let mute: Socket | undefined;
    const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, (stream) => {
      mute = stream;
    });
    const visitor = await connect(ADDRESS, tunnel.port);
    const stream = await until(() => mute, 'it is fetched');
    for (let i = 0; i < 5; i++) {
      visitor.write('?');
      await until(() => stream.bytesRead > 0, 'it arrives');
    }
    stream.write('!');
    expect((await readExactly(visitor, 1)).toString()).toBe('!');
    expect(await platform.metric('bore_server_connections')).toBe(1);
    visitor.destroy();
    // half-closed now, and lingering: it goes when its client does, or a minute later
    stream.destroy();
    client.stop();
    await until(async () => (await platform.metric('bore_server_connections')) === 0, 'it is gone');
  });
});

describe('a full disk', () => {
  it('harms the state file and nothing else, and is over when there is room', async ({ skip }) => {
    if (process.getuid?.() !== 0) return skip('a file system of its own needs root');
    const folder = await newDataDir();
    try {
      await run('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', folder]);
    } catch (error) {
      return skip(`this machine mounts no tmpfs: ${String(error)}`);
    }
    let server: BoreServerProcess | undefined;
    try {
      const data = path.join(folder, 'data');
      await mkdir(data);
      // before it starts: a file that it has may be rewritten in place of itself
      const fill = path.join(folder, 'fill');
      await writeFile(fill, Buffer.alloc(64 * 1024)).catch(() => undefined);
      server = await startBoreServer({
        backend: platform.backend,
        serverId: 'full',
        address: '127.0.2.12',
        ports: { min: 11_000, max: 11_009 },
        dataDir: data,
      });
      const tunnel = await platform.open(user, { port: 11_005 });
      const client = await CarryingClient.start(server, tunnel.token, tunnel.port, echo);
      await server.waitFor('the state file cannot be written');
      const visitor = await connect('127.0.2.12', tunnel.port);
      visitor.end('carried all the same');
      expect((await readAll(visitor)).bytes.toString()).toBe('carried all the same');
      // nothing half-written is left, and nothing is, but for the moment of another attempt
      const left = async () => (await readdir(data)).filter((name) => !name.endsWith('.lock'));
      await until(async () => (await left()).length === 0, 'nothing is left');
      await rm(fill);
      await server.waitFor('the state file can be written again');
      expect((await stat(path.join(data, 'bore-server.full.state'))).mode & 0o777).toBe(0o600);
      client.stop();
    } finally {
      await server?.kill9();
      await run('umount', [folder]);
    }
  });
});
