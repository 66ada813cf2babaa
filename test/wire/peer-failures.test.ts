/** Many bore-servers behind one name, and one of them, or the control plane, fails. */
import { once } from 'node:events';
import { type Socket } from 'node:net';

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { expectAtBest } from '../harness/at-best.js';
import type { Api } from '../harness/api.js';
import { Fleet, metric } from '../harness/fleet.js';
import type { OpenedTunnel } from '../harness/platform.js';
import { connect, readAll, readExactly } from '../harness/sockets.js';
import { until } from '../harness/until.js';
import { accept, hello, WireClient } from '../harness/wire-client.js';

const UNREACHABLE = { kind: 'error', text: 'the server of this tunnel cannot be reached now, try again' };
/** Upstream's client waits no longer for an answer. */
const CLIENT_WAITS_MS = 3_000;
const MAX_FORWARDED = 8;

let fleet: Fleet;
let user: Api;
const sockets: Socket[] = [];

beforeAll(async () => {
  fleet = await Fleet.start({
    name: 'failing.test',
    addresses: ['127.0.42.1', '127.0.42.2', '127.0.42.3'],
    serverEnv: { BORE_MAX_FORWARDED: String(MAX_FORWARDED), BORE_DRAIN_SECONDS: '10', BORE_WAITING_SECONDS: '4' },
  });
  user = await fleet.platform.newUser();
});

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  const none = async () => (await Promise.all(fleet.servers.map(forwarded))).every((count) => count === 0);
  await until(none, 'nothing is passed on any more');
});

afterAll(() => fleet?.stop());

const forwarded = (server: Parameters<typeof metric>[0]) => metric(server, 'bore_server_forwarded_connections');

async function carry(tunnel: OpenedTunnel, over: number): Promise<WireClient> {
  const { client, answer } = await hello(fleet.server(over), tunnel.token, tunnel.port);
  sockets.push(client.socket);
  expect(answer).toEqual({ kind: 'hello', port: tunnel.port });
  return client;
}

/** A visitor of a tunnel of server `at`, and its stream at the client, fetched over another. */
async function pair(tunnel: OpenedTunnel, at: number, client: WireClient, over: number) {
  const visitor = await connect(fleet.server(at).address, tunnel.port);
  const notice = await client.next();
  if (notice.kind !== 'connection') throw new Error(`expected a visitor, got ${notice.kind}`);
  const stream = await accept(fleet.server(over), tunnel.token, notice.id);
  sockets.push(visitor, stream);
  const runs = async () => {
    visitor.write('ping');
    expect((await readExactly(stream, 4)).toString()).toBe('ping');
    stream.write('pong');
    expect((await readExactly(visitor, 4)).toString()).toBe('pong');
  };
  await runs();
  return { visitor, stream, id: notice.id, runs };
}

describe('a server that hangs', () => {
  it('is given up on before its client does; who fetches a visitor there is not told an end', async () => {
    const tunnel = await fleet.openAt(1, user);
    const client = await carry(tunnel, 1);
    const visitor = await connect(fleet.server(1).address, tunnel.port);
    sockets.push(visitor);
    const notice = await client.next();
    fleet.server(1).signal('SIGSTOP');
    try {
      await expectAtBest(CLIENT_WAITS_MS, async () => {
        const began = performance.now();
        expect((await hello(fleet.server(2), tunnel.token, tunnel.port)).answer).toEqual(UNREACHABLE);
        return performance.now() - began;
      });
      const id = notice.kind === 'connection' ? notice.id : '';
      const stream = await accept(fleet.server(2), tunnel.token, id);
      expect(await readAll(stream)).toEqual({ bytes: Buffer.alloc(0), how: 'reset' });
    } finally {
      fleet.server(1).signal('SIGCONT');
    }
  });
});

describe('a client that finishes while its connection is being handed over', () => {
  it('has finished for the visitor, too', async () => {
    const tunnel = await fleet.openAt(1, user);
    const client = await carry(tunnel, 1);
    const visitor = await connect(fleet.server(1).address, tunnel.port);
    sockets.push(visitor);
    const notice = await client.next();
    const id = notice.kind === 'connection' ? notice.id : '';
    fleet.server(1).signal('SIGSTOP');
    try {
      const stream = await accept(fleet.server(2), tunnel.token, id);
      sockets.push(stream.end());
      await once(stream, 'finish');
      // s2 answers: it has heard of the end as well
      expect(await forwarded(fleet.server(2))).toBe(0);
    } finally {
      fleet.server(1).signal('SIGCONT');
    }
    expect(await readAll(visitor)).toEqual({ bytes: Buffer.alloc(0), how: 'finished' });
  });
});

describe('a server that is killed', () => {
  it('takes its own tunnels along, and nobody else’s; their clients come back over any server', async () => {
    const [lost, other] = [await fleet.openAt(1, user), await fleet.openAt(3, user)];
    const [client, unharmed] = [await carry(lost, 2), await carry(other, 2)];
    const stream = await pair(lost, 1, client, 3);
    const going = await pair(other, 3, unharmed, 2);
    const ends = [readAll(stream.visitor), readAll(stream.stream)];
    await fleet.server(1).kill9();
    for (const end of await Promise.all(ends)) expect(end.bytes.length).toBe(0);
    await client.closed();
    expect((await hello(fleet.server(2), lost.token, lost.port)).answer).toEqual(UNREACHABLE);
    await going.runs();
    await pair(other, 3, unharmed, 2);
    await fleet.restart(1);
    const back = await carry(lost, 3);
    await pair(lost, 1, back, 2);
    await going.runs();
  });

  it('harms what passes through it, and what does not goes on', async () => {
    const tunnel = await fleet.openAt(1, user);
    const client = await carry(tunnel, 2);
    const [own, third, through] = [
      await pair(tunnel, 1, client, 1),
      await pair(tunnel, 1, client, 3),
      await pair(tunnel, 1, client, 2),
    ];
    const ends = [readAll(through.visitor), readAll(through.stream)];
    await fleet.server(2).kill9();
    await Promise.all(ends);
    await client.closed();
    await own.runs();
    await third.runs();
    await until(async () => (await fleet.platform.stateOf(tunnel)) === 'offline', 'the session has ended');
    const back = await carry(tunnel, 3);
    await pair(tunnel, 1, back, 1);
    await own.runs();
    await third.runs();
    await fleet.restart(2);
    await fleet.settle();
  });
});

describe('a server that stops', () => {
  it('lets the visitors finish that it passes on, and takes no more clients of others', async () => {
    const tunnel = await fleet.openAt(1, user);
    const client = await carry(tunnel, 3);
    const { visitor, stream, runs } = await pair(tunnel, 1, client, 2);
    const stopping = fleet.server(2).stop();
    await fleet.server(2).waitFor('"msg":"draining"');
    await runs();
    const { answer } = await hello(fleet.server(2), tunnel.token, tunnel.port);
    expect(answer).toEqual({ kind: 'error', text: 'server is stopping' });
    await runs();
    visitor.end('bye');
    stream.end();
    expect((await readAll(stream)).bytes.toString()).toBe('bye');
    await stopping;
    await fleet.restart(2);
    await fleet.settle();
  });
});

describe('what a server passes on', () => {
  it('is limited: beyond it clients are told, and visitors’ streams are reset', async () => {
    const tunnel = await fleet.openAt(1, user);
    const client = await carry(tunnel, 2);
    for (let i = 1; i < MAX_FORWARDED; i++) await pair(tunnel, 1, client, 2);
    const { answer } = await hello(fleet.server(2), tunnel.token, tunnel.port);
    expect(answer).toEqual({ kind: 'error', text: 'server is full, try again' });
    const visitor = await connect(fleet.server(1).address, tunnel.port);
    sockets.push(visitor);
    const notice = await client.next();
    const id = notice.kind === 'connection' ? notice.id : '';
    expect((await readAll(await accept(fleet.server(2), tunnel.token, id))).how).toBe('reset');
    // it still waits, for whoever comes over another server
    const stream = await accept(fleet.server(3), tunnel.token, id, 'here');
    sockets.push(stream);
    expect((await readExactly(visitor, 4)).toString()).toBe('here');
  });
});

describe('without the control plane', () => {
  it('servers find each other as before, restarted ones too; only a search by secret alone has to wait', async () => {
    const tunnel = await fleet.openAt(1, user);
    const before = await carry(tunnel, 2);
    await pair(tunnel, 1, before, 3);
    await fleet.platform.backend.kill9();
    before.socket.destroy();
    const client = await carry(tunnel, 3);
    await pair(tunnel, 1, client, 2);
    await fleet.server(2).kill9();
    await fleet.restart(2, { register: false });
    const again = await carry(tunnel, 2);
    await pair(tunnel, 1, again, 2);
    expect((await hello(fleet.server(2), tunnel.token, 0)).answer).toEqual({
      kind: 'error',
      text: 'the service cannot authorise new tunnels right now, try again',
    });
    await fleet.platform.startBackendAgain();
    await fleet.server(2).waitFor('"msg":"registered"');
    const epoch = async () =>
      (await fleet.platform.database.query('SELECT epoch FROM tunnels WHERE id = $1', [tunnel.id]))[0]?.['epoch'];
    await until(async () => (await epoch()) === 3, 'the books have its third session');
    const found = await hello(fleet.server(2), tunnel.token, 0);
    sockets.push(found.client.socket);
    expect(found.answer).toEqual({ kind: 'hello', port: tunnel.port });
  });
});
