import { readdir, readFile, readlink } from 'node:fs/promises';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { expectAtBest } from '../harness/at-best.js';
import type { Api } from '../harness/api.js';
import { startBoreServer } from '../harness/bore-server.js';
import { Platform } from '../harness/platform.js';
import { connect, readAll } from '../harness/sockets.js';
import { until } from '../harness/until.js';
import { CarryingClient, hello, WireClient } from '../harness/wire-client.js';

const ADDRESS = '127.0.2.3';
const PORTS = { min: 10_000, max: 10_099 };

let platform: Platform;
let user: Api;

beforeAll(async () => {
  platform = await Platform.start({ address: ADDRESS, ports: PORTS });
  user = await platform.newUser();
});

afterAll(() => platform?.stop());

describe('without a backend', () => {
  it('what is connected goes on; who comes new hears why within the 3 s that upstream’s client waits', async () => {
    const [carried, late] = [await platform.open(user), await platform.open(user)];
    const client = await CarryingClient.start(platform.server, carried.token, carried.port, (stream) =>
      stream.end('hello'),
    );
    // a backend that hangs is worse than one that is gone
    platform.backend.signal('SIGSTOP');
    await expectAtBest(2_900, async () => {
      const began = performance.now();
      expect((await hello(platform.server, late.token, late.port)).answer).toEqual({
        kind: 'error',
        text: 'the service cannot authorise new tunnels right now, try again',
      });
      return performance.now() - began;
    });
    await platform.backend.kill9();
    expect((await hello(platform.server, late.token, 0)).answer.kind).toBe('error');
    const visitor = await connect(ADDRESS, carried.port);
    visitor.end();
    expect((await readAll(visitor)).bytes.toString()).toBe('hello');

    await platform.startBackendAgain();
    await until(
      async () => (await hello(platform.server, late.token, late.port)).answer.kind === 'hello',
      'new clients are authorised again',
    );
    expect(await platform.stateOf(carried)).toBe('active');
    client.stop();
  });
});

describe('a bore-server that is killed', () => {
  it('takes its tunnels offline when another process registers; their clients come back to the same port', async () => {
    const tunnel = await platform.open(user);
    await CarryingClient.start(platform.server, tunnel.token, tunnel.port, () => undefined);
    await platform.server.kill9();
    await platform.startServerAgain();
    expect(await platform.stateOf(tunnel)).toBe('offline');
    const { client, answer } = await hello(platform.server, tunnel.token, tunnel.port);
    expect(answer).toEqual({ kind: 'hello', port: tunnel.port });
    expect(await platform.stateOf(tunnel)).toBe('active');
    client.socket.destroy();
  });
});

describe('a second bore-server under one id', () => {
  it('takes over, and the first one ends itself', async () => {
    const first = platform.server;
    const second = await startBoreServer({ backend: platform.backend, ports: PORTS, address: '127.0.2.4' });
    expect(await first.exitCode()).toBe(1);
    expect(first.output()).toContain('another process has registered under this server id');
    platform.server = second;
  });
});

describe('a bore-server that stops', () => {
  it('tells its clients, and the control plane, and exits 0', async () => {
    const tunnel = await platform.open(user);
    const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, () => undefined);
    platform.server.signal('SIGTERM');
    expect(await client.over).toBe('server is stopping');
    expect(await platform.server.exitCode()).toBe(0);
    expect(await platform.stateOf(tunnel)).toBe('offline');
    const [row] = await platform.database.query(`SELECT state::text FROM servers WHERE id = 's1'`);
    expect(row?.state).toBe('draining');
    platform.server = await startBoreServer({ backend: platform.backend, ports: PORTS, address: ADDRESS });
  });
});

describe('stand-alone', () => {
  it('is upstream’s server: any free port for who knows the secret, and none twice', async () => {
    const server = await startBoreServer({
      secret: 'one for all',
      ports: { min: 10_000, max: 10_001 },
      address: '127.0.2.5',
    });
    try {
      const first = await CarryingClient.start(server, 'one for all', 10_001, (stream) => stream.end('one'));
      expect((await hello(server, 'one for all', 10_001)).answer).toEqual({
        kind: 'error',
        text: 'port already in use',
      });
      const second = await hello(server, 'one for all', 0);
      expect(second.answer).toEqual({ kind: 'hello', port: 10_000 });
      expect((await hello(server, 'one for all', 0)).answer).toEqual({
        kind: 'error',
        text: 'failed to find an available port',
      });
      expect((await hello(server, 'another', 0)).answer).toEqual({ kind: 'error', text: 'invalid secret' });
      const visitor = await connect('127.0.2.5', 10_001);
      visitor.end();
      expect((await readAll(visitor)).bytes.toString()).toBe('one');
      first.stop();
      await until(
        async () => (await hello(server, 'one for all', 10_001)).answer.kind === 'hello',
        'the port is free again',
      );
    } finally {
      await server.stop();
    }
  });

  it.each([
    [{}, /--backend-url is missing/],
    [{ BORE_SECRET: '' }, /--secret must not be empty/],
    [{ BORE_SECRET: 'x', BORE_BACKEND_URL: 'http://127.0.0.1:1' }, /--secret is for running without/],
    [{ BORE_SECRET: 'x', BORE_PORT_RANGE: '20:10' }, /--port-range/],
    [{ BORE_SECRET: 'x', BORE_CONTROL_PORT: 'http' }, /--control-port/],
  ])('is refused with a sentence when the settings are wrong: %o', async (env, sentence) => {
    const started = startBoreServer({ ports: PORTS, env }).then(
      () => 'started',
      (error: unknown) => String(error),
    );
    expect(await started).toMatch(sentence);
  });
});

describe('10,000 connections that say nothing', () => {
  it('are cut, harm nobody, and leave nothing behind', { timeout: 120_000 }, async () => {
    const tunnel = await platform.open(user);
    const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, (stream) =>
      stream.end('hello'),
    );
    const visit = async () => {
      const visitor = await connect(ADDRESS, tunnel.port);
      visitor.end();
      return (await readAll(visitor)).bytes.toString();
    };
    const silence = async (count: number) => {
      let cut = 0;
      // fewer than HANDSHAKES_PER_SOURCE_MAX from one source, and than HANDSHAKES_MAX in all
      const batch = Array.from({ length: 2_000 }, (_, i) => `127.0.3.${1 + (i % 4)}`);
      for (; cut < count; cut += batch.length) {
        const silent = await Promise.all(
          batch.map((from) =>
            // one that is shed may be gone before it knows that it was connected
            WireClient.connect(platform.server, from).catch(() => undefined),
          ),
        );
        expect(await visit()).toBe('hello');
        await Promise.all(silent.flatMap((wire) => (wire ? [wire.closed()] : [])));
      }
      return cut;
    };
    await silence(2_000);
    const figures = async () => ({
      descriptors: await descriptorsButToBackend(),
      residentBytes: await platform.metric('process_resident_memory_bytes'),
    });
    const before = await figures();
    expect(await silence(10_000)).toBe(10_000);
    // without the figures: who asks for them may be one of those connected
    await until(async () => (await descriptorsButToBackend()) <= before.descriptors, 'descriptors are given back');
    expect((await figures()).residentBytes - before.residentBytes).toBeLessThan(64 * 1024 * 1024);
    expect(platform.server.exited()).toBe(false);
    client.stop();
  });
});

/** Open descriptors of the bore-server, but for its connections to the backend: when two calls meet, fetch keeps a second for a minute. */
async function descriptorsButToBackend(): Promise<number> {
  const of = `/proc/${platform.server.pid}`;
  const port = Number(new URL(platform.backend.url).port).toString(16).toUpperCase().padStart(4, '0');
  const connections = (await readFile(`${of}/net/tcp`, 'utf8')).split('\n').map((line) => line.trim().split(/\s+/));
  const toBackend = new Set(
    connections.filter((row) => row[2]?.endsWith(`:${port}`)).map((row) => `socket:[${row[9]}]`),
  );
  const fds = await readdir(`${of}/fd`);
  const targets = await Promise.all(fds.map((fd) => readlink(`${of}/fd/${fd}`).catch(() => undefined)));
  return targets.filter((target) => target !== undefined && !toBackend.has(target)).length;
}
