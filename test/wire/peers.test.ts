/** Many bore-servers behind one name: whoever gets a connection, the owner of its tunnel has it. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import net, { type Socket } from 'node:net';

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { answerChallenge, keyOfSecret, randomUuid } from '../../src/protocol/challenge.js';
import { newConnectionId, portOfConnectionId } from '../../src/protocol/connection-id.js';
import { FrameReader } from '../../src/protocol/frames.js';
import { type HandOver, PeerKey } from '../../src/protocol/peer-link.js';
import type { Api } from '../harness/api.js';
import { SECRETS } from '../harness/backend.js';
import { startBoreServer } from '../harness/bore-server.js';
import { Fleet, metric, PEER_PORT } from '../harness/fleet.js';
import type { OpenedTunnel } from '../harness/platform.js';
import { connect, readAll, readExactly } from '../harness/sockets.js';
import { until } from '../harness/until.js';
import { accept, hello, WireClient } from '../harness/wire-client.js';

const NAME = 'tunnels.test';
/** Of the rotation list, too. */
const OLD_KEY = 'old-0123456789abcdef0123456789abcdef';
const UNREACHABLE = { kind: 'error', text: 'the server of this tunnel cannot be reached now, try again' };

let fleet: Fleet;
let user: Api;
const sockets: Socket[] = [];

beforeAll(async () => {
  fleet = await Fleet.start({
    name: NAME,
    addresses: ['127.0.41.1', '127.0.41.2', '127.0.41.3'],
    serverEnv: { BORE_BACKEND_API_KEY: `${SECRETS.INTERNAL_API_KEY},${OLD_KEY}` },
  });
  user = await fleet.platform.newUser();
});

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

afterAll(() => fleet?.stop());

/** A client that carries a tunnel over one of the servers, and is told its port. */
async function carry(tunnel: OpenedTunnel, number: number, port = tunnel.port): Promise<WireClient> {
  const { client, answer } = await hello(fleet.server(number), tunnel.token, port);
  sockets.push(client.socket);
  expect(answer).toEqual({ kind: 'hello', port: tunnel.port });
  return client;
}

/** A visitor of a tunnel of s1, and the id by which its client can fetch it. */
async function visit(tunnel: OpenedTunnel, client: WireClient): Promise<{ visitor: Socket; id: string }> {
  const visitor = await connect(fleet.server(1).address, tunnel.port);
  sockets.push(visitor);
  const notice = await client.next();
  if (notice.kind !== 'connection') throw new Error(`expected a visitor, got ${notice.kind}`);
  return { visitor, id: notice.id };
}

/** Hands a greeting over to s1, as another server would. */
async function handOver(message: HandOver['message'], tag: (challenge: string) => string, internalKey: string) {
  const challenge = randomUuid();
  const key = new PeerKey(internalKey);
  const socket = await connect(fleet.server(1).address, PEER_PORT);
  sockets.push(socket);
  const nonce = (await readExactly(socket, 37)).toString().slice(0, 36);
  const greeting = { nonce: randomUuid(), address: '192.0.2.7', challenge, tag: tag(challenge), message };
  const text = JSON.stringify(greeting satisfies HandOver);
  socket.write(`${text}\0${key.prove('forwarder', nonce, text)}\0`);
  return { ...(await readAll(socket)), ownerProof: key.prove('owner', nonce, text) };
}

describe('a tunnel of one server', () => {
  it('is carried over any of them: named port or none, visitors fetched over a third, whole and half-closed', async () => {
    const tunnel = await fleet.openAt(1, user);
    for (const [over, fetched, port] of [
      [2, 3, tunnel.port],
      [3, 2, 0],
      [1, 2, 0],
      [2, 1, tunnel.port],
    ] as const) {
      const client = await carry(tunnel, over, port);
      const { visitor, id } = await visit(tunnel, client);
      expect(portOfConnectionId(id)).toBe(tunnel.port);
      const [up, down] = [randomBytes(1_000_000), randomBytes(1_000_000)];
      const stream = await accept(fleet.server(fetched), tunnel.token, id, down.subarray(0, 5));
      sockets.push(stream);
      visitor.end(up);
      // the visitor has finished, and goes on listening
      expect((await readAll(stream)).bytes.equals(up)).toBe(true);
      stream.end(down.subarray(5));
      const end = await readAll(visitor);
      expect([end.how, end.bytes.equals(down)]).toEqual(['finished', true]);
      client.socket.destroy();
      await until(async () => (await fleet.platform.stateOf(tunnel)) === 'offline', 'the client is gone');
    }
  });

  it('knows its client by the client’s own address, and evicts the older one wherever it came in', async () => {
    const tunnel = await fleet.openAt(1, user);
    const first = await WireClient.connect(fleet.server(2), '127.0.41.77');
    sockets.push(first.socket);
    await first.greet(tunnel.token, { kind: 'hello', port: tunnel.port });
    expect(await first.next()).toEqual({ kind: 'hello', port: tunnel.port });
    const [row] = await fleet.platform.database.query('SELECT client_address FROM tunnels WHERE id = $1', [tunnel.id]);
    expect(row).toEqual({ client_address: '127.0.41.77' });
    await carry(tunnel, 3);
    expect(await first.next()).toEqual({ kind: 'error', text: 'taken over by another connection of this tunnel' });
    expect(await first.closed()).toBe('finished');
  });

  it('breaks a stream for one side when the other breaks it', async () => {
    const tunnel = await fleet.openAt(1, user);
    const client = await carry(tunnel, 2);
    const pair = async () => {
      const { visitor, id } = await visit(tunnel, client);
      const stream = await accept(fleet.server(3), tunnel.token, id, 'hello');
      sockets.push(stream);
      expect((await readExactly(visitor, 5)).toString()).toBe('hello');
      return { visitor, stream };
    };
    const one = await pair();
    one.stream.resetAndDestroy();
    expect((await readAll(one.visitor)).how).toBe('reset');
    const other = await pair();
    other.visitor.resetAndDestroy();
    expect((await readAll(other.stream)).how).toBe('reset');
  });

  it('is closed for its client when it is deleted', async () => {
    const tunnel = await fleet.openAt(1, user);
    const client = await carry(tunnel, 2);
    await user.delete(`/api/v1/tunnels/${tunnel.id}`);
    expect(await client.next()).toEqual({ kind: 'error', text: 'tunnel closed: deleted' });
  });
});

describe('whoever may not', () => {
  it('hears upstream’s words over another server, too', async () => {
    const tunnel = await fleet.openAt(1, user);
    const said = async (secret: string, port: number) => (await hello(fleet.server(2), secret, port)).answer;
    expect(await said('tk_wrong', tunnel.port)).toEqual({ kind: 'error', text: 'invalid secret' });
    expect(await said('tk_wrong', 0)).toEqual({ kind: 'error', text: 'invalid secret' });
    expect(await said(tunnel.token, tunnel.port + 1)).toEqual({ kind: 'error', text: 'invalid secret' });
    const outside = { kind: 'error', text: 'client port number not in allowed range' };
    expect(await said(tunnel.token, 20_000)).toEqual(outside);
    const client = await WireClient.connect(fleet.server(2));
    await client.next();
    client.send({ kind: 'hello', port: tunnel.port });
    expect(await client.next()).toEqual({
      kind: 'error',
      text: 'server requires secret, but no secret was provided',
    });
  });

  it('does not get another’s visitor, who is still there for the right client', async () => {
    const [tunnel, foreign] = [await fleet.openAt(1, user), await fleet.openAt(2, await fleet.platform.newUser())];
    const client = await carry(tunnel, 2);
    const { visitor, id } = await visit(tunnel, client);
    for (const number of [1, 2, 3]) {
      const thief = await WireClient.connect(fleet.server(number));
      await thief.greet(foreign.token, { kind: 'accept', id });
      expect(await thief.next()).toEqual({ kind: 'error', text: 'invalid secret' });
      // an id that nobody has
      const guesser = await WireClient.connect(fleet.server(number));
      await guesser.greet(tunnel.token, { kind: 'accept', id: newConnectionId(tunnel.port) });
      await expect(guesser.next()).rejects.toThrow(/without another message/);
    }
    // none of them has closed: nothing is kept for them all the same
    const passedOn = () => metric(fleet.server(3), 'bore_server_forwarded_connections');
    await until(async () => (await passedOn()) === 0, 'they are gone', 3_000);
    const stream = await accept(fleet.server(3), tunnel.token, id, 'yours');
    sockets.push(stream);
    expect((await readExactly(visitor, 5)).toString()).toBe('yours');
  });

  it('is no peer without the internal key, and nothing is given away', async () => {
    const tunnel = await fleet.openAt(1, user);
    const tag = (challenge: string) => answerChallenge(keyOfSecret(tunnel.token), challenge);
    const wish: HandOver['message'] = { kind: 'hello', port: tunnel.port };
    const stranger = await handOver(wish, tag, 'another-0123456789abcdef0123456789abcdef');
    expect(stranger.bytes.length).toBe(0);
    const silent = await connect(fleet.server(1).address, PEER_PORT);
    sockets.push(silent);
    const began = performance.now();
    expect((await readAll(silent)).bytes.length).toBe(37);
    expect(performance.now() - began).toBeLessThan(6_000);
    // a peer is believed, under any key of the list, but not that a client is a good one
    for (const key of [SECRETS.INTERNAL_API_KEY, OLD_KEY]) {
      const wrong = await handOver(wish, () => '0'.repeat(64), key);
      expect(wrong.bytes.toString()).toBe(`${wrong.ownerProof}\0{"Error":"invalid secret"}\0`);
    }
  });

  it('is no server of the name with ports of another, and says so until it is put right', async () => {
    const { backend } = fleet.platform;
    const intruder = await startBoreServer({
      backend,
      serverId: 'intruder',
      address: '127.0.41.4',
      ports: { min: 10_050, max: 10_149 },
      env: { BORE_HOST: NAME, BORE_PEER_PORT: '0', BORE_PEER_HOST: '127.0.41.4' },
      register: false,
    });
    await intruder.waitFor('another of the same public name has ports of its range');
    expect((await fetch(`${intruder.adminUrl}/ready`)).status).toBe(503);
    await intruder.stop();
  });

  it('is not handed on a second time', async () => {
    const tunnel = await fleet.openAt(2, user);
    const tag = (challenge: string) => answerChallenge(keyOfSecret(tunnel.token), challenge);
    const strayed = await handOver({ kind: 'hello', port: tunnel.port }, tag, SECRETS.INTERNAL_API_KEY);
    expect(strayed.bytes.toString()).toContain('{"Error":"client port number not in allowed range"}');
    const visitor = await handOver({ kind: 'accept', id: newConnectionId(tunnel.port) }, tag, SECRETS.INTERNAL_API_KEY);
    // the owner's proof, and its end
    expect(visitor.bytes.length).toBe(65);
  });

  it('gets nothing of a client by taking an owner’s place', async () => {
    const heard: string[] = [];
    const impostor = net.createServer((socket) => {
      const reader = new FrameReader(10_000);
      socket.on('error', () => undefined);
      socket.write(`${randomUuid()}\0`);
      socket.on('data', (chunk: Buffer) => {
        reader.push(chunk);
        for (let frame = reader.next(); frame !== undefined; frame = reader.next()) heard.push(frame);
        // its own proof sent back, and an answer that the client is to believe
        if (heard.length === 2) socket.write(`${heard[1]}\0{"Hello":1}\0`);
      });
    });
    impostor.listen(0, '127.0.0.1');
    await once(impostor, 'listening');
    const address = impostor.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const { database } = fleet.platform;
    await database.query(
      `INSERT INTO servers (id, host, port, location, max_tunnels, max_bandwidth_mbps, port_min, port_max, peer_host, peer_port)
       VALUES ('fake', $1, 7835, 'x', 1, 1, 15000, 15009, '127.0.0.1', $2)`,
      [NAME, port],
    );
    const known = async () => (await metric(fleet.server(2), 'bore_server_peers')) === 3;
    await until(known, 's2 knows the fake');
    const client = await WireClient.connect(fleet.server(2));
    await client.greet('tk_any', { kind: 'hello', port: 15_000 });
    client.send('and more');
    expect(await client.next()).toEqual(UNREACHABLE);
    expect(heard).toHaveLength(2);
    expect(heard.join()).not.toContain('and more');
    await database.query(`DELETE FROM servers WHERE id = 'fake'`);
    impostor.close();
    await fleet.settle();
  });
});
