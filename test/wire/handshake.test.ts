import { randomUUID } from 'node:crypto';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { type OpenedTunnel, Platform } from '../harness/platform.js';
import { connect, isRefused, readAll, readExactly } from '../harness/sockets.js';
import { until } from '../harness/until.js';
import { accept, CarryingClient, hello, WireClient } from '../harness/wire-client.js';

const ADDRESS = '127.0.2.2';

let platform: Platform;
let user: Api;

beforeAll(async () => {
  platform = await Platform.start({ address: ADDRESS, ports: { min: 10_000, max: 10_099 } });
  user = await platform.newUser();
});

afterAll(() => platform?.stop());

const open = () => platform.open(user);
const visit = ({ port }: OpenedTunnel) => connect(ADDRESS, port);

describe('a client that says Hello', () => {
  it('gets its own port, whether it names it or not', async () => {
    for (const named of [true, false]) {
      const tunnel = await open();
      const { client, answer } = await hello(platform.server, tunnel.token, named ? tunnel.port : 0);
      expect(answer).toEqual({ kind: 'hello', port: tunnel.port });
      expect(await platform.stateOf(tunnel)).toBe('active');
      client.socket.destroy();
      await until(async () => (await platform.stateOf(tunnel)) === 'offline', 'the tunnel is offline');
      expect(await isRefused(ADDRESS, tunnel.port)).toBe(true);
    }
  });

  it('is refused, in upstream’s words, with a wrong secret, a foreign port, or a port of nobody', async () => {
    const [mine, foreign] = [await open(), await open()];
    const errorOf = async (secret: string, port: number) => (await hello(platform.server, secret, port)).answer;
    const invalid = { kind: 'error', text: 'invalid secret' };
    expect(await errorOf('tk_wrong', mine.port)).toEqual(invalid);
    expect(await errorOf('tk_wrong', 0)).toEqual(invalid);
    expect(await errorOf(mine.token, foreign.port)).toEqual(invalid);
    const free = [...Array(100).keys()]
      .map((i) => 10_000 + i)
      .find((port) => ![mine.port, foreign.port].includes(port));
    expect(await errorOf(mine.token, free ?? 0)).toEqual(invalid);
    expect(await errorOf(mine.token, 9_999)).toEqual({
      kind: 'error',
      text: 'client port number not in allowed range',
    });
    expect(await platform.stateOf(mine)).toBe('pending');
  });

  it('may search by the secret alone only so often in vain; naming the port still works', async () => {
    const tunnel = await open();
    const text = async (secret: string, port: number) => {
      const { answer } = await hello(platform.server, secret, port);
      return answer.kind === 'error' ? answer.text : answer.kind;
    };
    // FAILED_SEARCHES_MAX in src/bore-server/limits.ts, less the one of the test before
    const outcomes = [];
    for (let i = 0; i < 12; i++) outcomes.push(await text('tk_wrong', 0));
    expect(outcomes).toContain('invalid secret');
    expect(outcomes.at(-1)).toMatch(/^too many failed attempts/);
    expect(await text(tunnel.token, 0)).toMatch(/^too many failed attempts/);
    expect(await text(tunnel.token, tunnel.port)).toBe('hello');
  });

  it('is cut off after 3 s, though it drips, and a whole handshake in pieces of one byte is understood', async () => {
    const silent = await WireClient.connect(platform.server);
    const began = performance.now();
    const drip = setInterval(() => silent.send('x'), 200);
    await silent.closed();
    clearInterval(drip);
    expect(performance.now() - began).toBeGreaterThan(2_500);
    expect(performance.now() - began).toBeLessThan(4_500);

    const tunnel = await open();
    const slow = await WireClient.connect(platform.server);
    const sent: Buffer[] = [];
    const { socket } = slow;
    const write = socket.write.bind(socket);
    socket.write = (chunk: Uint8Array | string) => sent.push(Buffer.from(chunk)) > 0;
    await slow.greet(tunnel.token, { kind: 'hello', port: tunnel.port });
    for (const byte of Buffer.concat(sent)) {
      await new Promise((resolve) => write(Buffer.of(byte), resolve));
    }
    expect(await slow.next()).toEqual({ kind: 'hello', port: tunnel.port });
    socket.destroy();
  });
});

describe('a visitor', () => {
  it('is carried both ways; bytes behind the Accept frame belong to the stream', async () => {
    const tunnel = await open();
    const { client } = await hello(platform.server, tunnel.token, tunnel.port);
    const visitor = await visit(tunnel);
    visitor.write('from the visitor');
    const message = await client.next();
    if (message.kind !== 'connection') throw new Error(message.kind);
    const stream = await accept(platform.server, tunnel.token, message.id, 'behind\0the frame');
    expect((await readExactly(visitor, 16)).toString()).toBe('behind\0the frame');
    expect((await readExactly(stream, 16)).toString()).toBe('from the visitor');

    // half-close: the visitor has finished, and still gets the whole answer (G5)
    visitor.end();
    expect(await readAll(stream)).toEqual({ bytes: Buffer.alloc(0), how: 'finished' });
    stream.end('the answer');
    expect(await readAll(visitor)).toEqual({ bytes: Buffer.from('the answer'), how: 'finished' });
    client.socket.destroy();
  });

  it('is not given to another tenant, and kept for its own client', async () => {
    const [tunnel, other] = [await open(), await open()];
    const { client } = await hello(platform.server, tunnel.token, tunnel.port);
    const thief = await hello(platform.server, other.token, other.port);
    const visitor = await visit(tunnel);
    const message = await client.next();
    if (message.kind !== 'connection') throw new Error(message.kind);

    const stolen = await readAll(await accept(platform.server, other.token, message.id));
    expect(stolen.bytes.toString()).toBe('{"Error":"invalid secret"}\0');
    const unknown = await readAll(await accept(platform.server, tunnel.token, randomUUID()));
    expect(unknown.bytes.toString()).toBe('');

    const stream = await accept(platform.server, tunnel.token, message.id);
    stream.end('mine');
    expect((await readAll(visitor)).bytes.toString()).toBe('mine');
    visitor.end();
    const again = await readAll(await accept(platform.server, tunnel.token, message.id));
    expect(again.bytes.toString()).toBe('');
    client.socket.destroy();
    thief.client.socket.destroy();
  });

  it('that nobody fetches is dropped after 10 s, and no more than 256 wait', async () => {
    const tunnel = await open();
    const { client } = await hello(platform.server, tunnel.token, tunnel.port);
    const began = performance.now();
    const ends = await Promise.all(
      Array.from({ length: 300 }, async () => {
        // one that is shed may be gone before it knows that it was connected
        await visit(tunnel).then(readAll, () => undefined);
        return performance.now() - began;
      }),
    );
    const shed = ends.filter((afterMs) => afterMs < 5_000);
    expect(shed).toHaveLength(300 - 256);
    expect(Math.min(...ends.filter((afterMs) => !shed.includes(afterMs)))).toBeGreaterThan(9_500);
    await until(async () => (await platform.metric('bore_server_connections')) === 0, 'no visitor is left');
    client.socket.destroy();
  });
});

describe('a tunnel that connects again', () => {
  it('evicts its older session at once, and its waiting visitors are announced to the new one', async () => {
    const tunnel = await open();
    const older = await hello(platform.server, tunnel.token, tunnel.port);
    const visitor = await visit(tunnel);
    const first = await older.client.next();
    const newer = await hello(platform.server, tunnel.token, tunnel.port);
    expect(newer.answer).toEqual({ kind: 'hello', port: tunnel.port });
    expect(await older.client.next()).toEqual({
      kind: 'error',
      text: 'taken over by another connection of this tunnel',
    });
    const announced = await newer.client.next();
    expect(announced).toEqual(first);
    if (announced.kind !== 'connection') throw new Error(announced.kind);
    (await accept(platform.server, tunnel.token, announced.id)).end('from the new one');
    expect((await readAll(visitor)).bytes.toString()).toBe('from the new one');
    visitor.end();
    // the report of the old session's end changes nothing about the new one (G3)
    await platform.server.waitFor('"reason":"taken_over"');
    expect(await platform.stateOf(tunnel)).toBe('active');
    newer.client.socket.destroy();
  });

  it('keeps the streams of a client that lost only its control connection', async () => {
    const tunnel = await open();
    let carried: Awaited<ReturnType<typeof accept>> | undefined;
    const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, (stream) => {
      carried = stream;
    });
    const visitor = await visit(tunnel);
    const stream = await until(() => carried, 'the visitor is fetched');
    client.stop();
    await until(async () => (await platform.stateOf(tunnel)) === 'offline', 'the tunnel is offline');
    stream.end('still here');
    visitor.end();
    expect((await readAll(visitor)).bytes.toString()).toBe('still here');
  });
});

describe('a tunnel that is deleted', () => {
  it('is closed on the wire within 2 s: its client is told, its visitors are cut, its port is free', async () => {
    const tunnel = await open();
    let carried: Awaited<ReturnType<typeof accept>> | undefined;
    const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, (stream) => {
      carried = stream;
    });
    const visitor = await visit(tunnel);
    await until(() => carried, 'the visitor is fetched');
    const began = performance.now();
    const ended = readAll(visitor);
    expect((await user.delete(`/api/v1/tunnels/${tunnel.id}`)).status).toBe(204);
    expect(await client.over).toBe('tunnel closed: deleted');
    // cut, and not finished: what a visitor had of an answer must not look whole
    expect((await ended).how).toBe('reset');
    expect(await isRefused(ADDRESS, tunnel.port)).toBe(true);
    expect(performance.now() - began).toBeLessThan(2_000);
    expect((await hello(platform.server, tunnel.token, tunnel.port)).answer).toEqual({
      kind: 'error',
      text: 'invalid secret',
    });
  });

  it('is closed by the next heartbeat when the bore-server could not be asked', async () => {
    const tunnel = await open();
    const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, () => undefined);
    await platform.database.query(`UPDATE servers SET admin_url = 'http://127.0.0.1:19999'`);
    try {
      expect((await user.delete(`/api/v1/tunnels/${tunnel.id}`)).status).toBe(204);
      expect(await client.over).toBe('tunnel closed: deleted');
      expect(platform.backend.output()).toMatch(/bore-server could not be/);
    } finally {
      await platform.database.query(`UPDATE servers SET admin_url = $1`, [platform.server.adminUrl]);
    }
  });
});

describe('the admin surface', () => {
  it('takes orders only from who has the internal key', async () => {
    const tunnel = await open();
    const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, () => undefined);
    const order = (headers: Record<string, string>, body = '{"reason":"test"}') =>
      fetch(`${platform.server.adminUrl}/tunnels/${tunnel.id}/close`, { method: 'POST', headers, body });
    expect((await order({})).status).toBe(401);
    expect((await order({ 'x-internal-api-key': 'wrong' })).status).toBe(401);
    const key = 'internal-0123456789abcdef0123456789abcdef';
    expect((await order({ 'x-internal-api-key': key }, 'no json')).status).toBe(400);
    expect((await order({ 'x-internal-api-key': key }, 'x'.repeat(10_000))).status).toBe(400);
    expect(await platform.stateOf(tunnel)).toBe('active');
    expect((await order({ 'x-internal-api-key': key })).status).toBe(200);
    expect(await client.over).toBe('tunnel closed: test');
    expect((await fetch(`${platform.server.adminUrl}/nothing`)).status).toBe(404);
    expect((await fetch(`${platform.server.adminUrl}/health`)).status).toBe(200);
  });
});
