/** Upstream's own client, bore 0.6.0, as a full citizen. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import net, { type Socket } from 'node:net';

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { expectAtBest } from '../harness/at-best.js';
import { type OpenedTunnel, Platform } from '../harness/platform.js';
import { RunningProcess } from '../harness/running-process.js';
import { connect, isRefused, readAll } from '../harness/sockets.js';
import { until } from '../harness/until.js';

/** An address of the suite's own: upstream's client knows port 7835 only. */
const ADDRESS = '127.0.2.7';
const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

const bore = inject('upstreamBore');

describe('upstream’s bore client', () => {
  let platform: Platform;
  let user: Api;
  const clients: RunningProcess[] = [];
  const services: net.Server[] = [];
  const visitors: Socket[] = [];

  beforeEach(({ skip }) => {
    if ('missing' in bore) skip(bore.missing);
  });

  beforeAll(async () => {
    if ('missing' in bore) return;
    platform = await Platform.start({
      address: ADDRESS,
      controlPort: 7835,
      ports: { min: 10_000, max: 10_099 },
      // one source address stands for all visitors of the world
      env: { PLAN_FREE_TUNNELS: '50' },
    });
    user = await platform.newUser();
  });

  afterAll(async () => {
    for (const client of clients) await client.kill9();
    for (const service of services) service.close();
    await platform?.stop();
  });

  /** A local service, half-open-able like any TCP server may be. */
  async function serve(onConnection: (socket: Socket) => void): Promise<number> {
    const service = net.createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => undefined);
      onConnection(socket);
    });
    services.push(service);
    service.listen(0, '127.0.0.1');
    await once(service, 'listening');
    const address = service.address();
    if (address === null || typeof address === 'string') throw new Error('a TCP server has no port');
    return address.port;
  }

  function startBore(args: readonly string[]): RunningProcess {
    const client = new RunningProcess('path' in bore ? bore.path : '', args, { PATH: process.env['PATH'] });
    clients.push(client);
    return client;
  }

  /** Runs the very command that the API answered with. */
  async function carry(tunnel: OpenedTunnel): Promise<RunningProcess> {
    const [, ...args] = tunnel.command.split(' ');
    const client = startBore(args);
    await client.waitFor(`listening at ${ADDRESS}:${tunnel.port}`);
    return client;
  }

  async function visit({ port }: OpenedTunnel): Promise<Socket> {
    const visitor = await connect(ADDRESS, port);
    visitors.push(visitor);
    return visitor;
  }

  afterEach(() => {
    for (const visitor of visitors.splice(0)) visitor.destroy();
  });

  it('is carried by the command of the API, at the named port and at the one that its secret finds', async () => {
    const localPort = await serve((socket) => socket.pipe(socket));
    const tunnel = await platform.open(user, { localPort });
    const echo = async () => {
      const visitor = await visit(tunnel);
      visitor.end('hello');
      return (await readAll(visitor)).bytes.toString();
    };
    const named = await carry(tunnel);
    expect(await echo()).toBe('hello');
    await named.kill9();
    const searched = startBore(['local', String(localPort), '--to', ADDRESS, '--secret', tunnel.token]);
    await searched.waitFor(`listening at ${ADDRESS}:${tunnel.port}`);
    expect(await echo()).toBe('hello');
  });

  it('says what is wrong: the secret, somebody else’s port, a port out of range', async () => {
    const [mine, foreign] = [await platform.open(user), await platform.open(user)];
    const failure = async (secret: string, port: number) => {
      const client = startBore(['local', '1', '--to', ADDRESS, '--port', String(port), '--secret', secret]);
      expect(await client.exitCode()).toBe(1);
      return client.output();
    };
    expect(await failure('tk_wrong', mine.port)).toContain('invalid secret');
    expect(await failure(mine.token, foreign.port)).toContain('invalid secret');
    expect(await failure(mine.token, 20_000)).toContain('client port number not in allowed range');
    const without = startBore(['local', '1', '--to', ADDRESS, '--port', String(mine.port)]);
    expect(await without.exitCode()).toBe(1);
    expect(without.output()).toContain('server requires authentication, but no client secret was provided');
  });

  it('carries 1 GiB each way, to the byte', { timeout: 240_000 }, async () => {
    const block = Buffer.alloc(4 * MIB, 'every block is the same but for its number, ');
    const send = async (socket: Socket): Promise<string> => {
      const hash = createHash('sha256');
      for (let i = 0; i < GIB / block.length; i++) {
        const piece = Buffer.from(block);
        piece.writeUInt32BE(i);
        hash.update(piece);
        if (!socket.write(piece)) await once(socket, 'drain');
      }
      socket.end();
      return hash.digest('hex');
    };
    const receive = async (socket: Socket): Promise<string> => {
      const hash = createHash('sha256');
      let bytes = 0;
      socket.on('data', (chunk: Buffer) => {
        hash.update(chunk);
        bytes += chunk.length;
      });
      await once(socket, 'end');
      expect(bytes).toBe(GIB);
      return hash.digest('hex');
    };
    let atService: Promise<[string, string]> | undefined;
    const localPort = await serve((socket) => {
      atService = Promise.all([send(socket), receive(socket)]);
    });
    const tunnel = await platform.open(user, { localPort });
    await carry(tunnel);
    const visitor = await visit(tunnel);
    const began = performance.now();
    const [sent, received] = await Promise.all([send(visitor), receive(visitor)]);
    const [serviceSent, serviceReceived] = (await atService) ?? [];
    expect([serviceReceived, received]).toEqual([sent, serviceSent]);
    process.stdout.write(`2 GiB in ${((performance.now() - began) / 1000).toFixed(1)} s\n`);
  });

  it('gets the whole answer after the visitor has shut its write side', async () => {
    const answer = Buffer.alloc(5 * MIB, 'answer');
    const localPort = await serve((socket) => {
      // says nothing until it has heard everything
      socket.resume().once('end', () => socket.end(answer));
    });
    const tunnel = await platform.open(user, { localPort });
    await carry(tunnel);
    const visitor = await visit(tunnel);
    visitor.end(Buffer.alloc(MIB, 'question'));
    const { bytes, how } = await readAll(visitor);
    expect(how).toBe('finished');
    expect(bytes.equals(answer)).toBe(true);
  });

  it('tells the local service who its visitor is, by a PROXY protocol header', async () => {
    let heard = '';
    const localPort = await serve((socket) => {
      socket.on('data', (chunk: Buffer) => (heard += chunk.toString())).on('end', () => socket.end());
    });
    const tunnel = await platform.open(user, { localPort, proxyProtocol: 'v1' });
    await carry(tunnel);
    const visitor = await connect(ADDRESS, tunnel.port, '127.0.4.1');
    visitor.end('GET / HTTP/1.0');
    await readAll(visitor);
    expect(heard).toMatch(/^PROXY TCP4 127\.0\.4\.1 127\.0\.2\.7 \d+ \d+\r\nGET \/ HTTP\/1\.0$/);
  });

  it('serves 200 visitors at once, each its own', async () => {
    const localPort = await serve((socket) => socket.pipe(socket));
    const tunnel = await platform.open(user, { localPort });
    await carry(tunnel);
    const all = await Promise.all(Array.from({ length: 200 }, () => visit(tunnel)));
    const echoes = await Promise.all(
      all.map(async (visitor, i) => {
        const mine = Buffer.alloc(32 * 1024, `visitor ${i} `);
        visitor.end(mine);
        return (await readAll(visitor)).bytes.equals(mine);
      }),
    );
    expect(echoes.filter(Boolean)).toHaveLength(200);
  });

  it('is back within 2 s of a kill -9, on the same port, though the old connection is not even noticed', async () => {
    const localPort = await serve((socket) => socket.end('served'));
    const tunnel = await platform.open(user, { localPort });
    let client = await carry(tunnel);
    const isServed = async () => expect((await readAll(await visit(tunnel))).bytes.toString()).toBe('served');
    await expectAtBest(2_000, async () => {
      const stopped = client;
      // not killed: its kernel goes on answering, so only takeover can free the port
      stopped.signal('SIGSTOP');
      const began = performance.now();
      client = await carry(tunnel);
      const ms = performance.now() - began;
      await isServed();
      await stopped.kill9();
      return ms;
    });
    await expectAtBest(2_000, async () => {
      await client.kill9();
      const began = performance.now();
      client = await carry(tunnel);
      await isServed();
      return performance.now() - began;
    });
  });

  it('is told, and ends, when its tunnel is deleted under load', async () => {
    const localPort = await serve((socket) => {
      const piece = Buffer.alloc(64 * 1024);
      const fill = (): void => {
        // one piece a turn: the visitors are in this process too
        if (socket.writable) socket.write(piece, () => setImmediate(fill));
      };
      fill();
    });
    await expectAtBest(2_000, async () => {
      const tunnel = await platform.open(user, { localPort });
      const client = await carry(tunnel);
      const crowd = await Promise.all(Array.from({ length: 20 }, () => visit(tunnel)));
      let bytes = 0;
      for (const visitor of crowd) visitor.on('data', (chunk: Buffer) => (bytes += chunk.length));
      await until(() => bytes > 10 * MIB, 'the load runs');
      const cut = Promise.all(crowd.map(readAll));
      const began = performance.now();
      expect((await user.delete(`/api/v1/tunnels/${tunnel.id}`)).status).toBe(204);
      await cut;
      expect(await client.exitCode()).not.toBeNull();
      const ms = performance.now() - began;
      expect(await isRefused(ADDRESS, tunnel.port)).toBe(true);
      return ms;
    });
    await until(async () => (await platform.metric('bore_server_connections')) === 0, 'no visitor is left');
  });
});
