/** Everything that the control plane is made of is killed, and what is carried goes on (G2). */
import { stat } from 'node:fs/promises';
import type { Socket } from 'node:net';
import path from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { OwnPostgres } from '../harness/own-postgres.js';
import { Platform } from '../harness/platform.js';
import { connect, readAll, readExactly } from '../harness/sockets.js';
import { until } from '../harness/until.js';
import { CarryingClient, hello } from '../harness/wire-client.js';

const ADDRESS = '127.0.2.9';
const UNAVAILABLE = 'the service cannot authorise new tunnels right now, try again';

let postgres: OwnPostgres;
let platform: Platform;
let user: Api;

beforeAll(async () => {
  postgres = await OwnPostgres.start();
  platform = await Platform.start({ address: ADDRESS, ports: { min: 10_000, max: 10_099 }, database: postgres });
  user = await platform.newUser();
});

afterAll(() => platform?.stop());

const echo = (stream: Socket): void => {
  stream.on('error', () => undefined);
  stream.pipe(stream);
};

async function echoed(port: number, text: string): Promise<string> {
  const visitor = await connect(ADDRESS, port);
  visitor.end(text);
  return (await readAll(visitor)).bytes.toString();
}

const usageOf = async (id: string) => (await user.get(`/api/v1/tunnels/${id}/usage`)).body.total;

describe('with every backend and PostgreSQL killed', () => {
  it('streams go on, visitors come, known clients return, and everything is in the books afterwards', async () => {
    const [carried, known, unknown] = [await platform.open(user), await platform.open(user), await platform.open(user)];
    let client = await CarryingClient.start(platform.server, carried.token, carried.port, echo);
    const before = await CarryingClient.start(platform.server, known.token, known.port, echo);
    before.stop();
    await until(async () => (await platform.stateOf(known)) === 'offline', 'the known client is gone');
    const stream = await connect(ADDRESS, carried.port);
    stream.write('before ');
    expect((await readExactly(stream, 7)).toString()).toBe('before ');

    await platform.backend.kill9();
    await postgres.kill9();

    // streams go on, and new visitors get through
    stream.write('during ');
    expect((await readExactly(stream, 7)).toString()).toBe('during ');
    expect(await echoed(carried.port, 'a new visitor')).toBe('a new visitor');
    // known clients return: one that was connected, one that had left; by port, and by the secret alone
    client.stop();
    client = await CarryingClient.start(platform.server, carried.token, 0, echo);
    const back = await CarryingClient.start(platform.server, known.token, known.port, echo);
    expect(await echoed(known.port, 'of one that had left')).toBe('of one that had left');
    // a client that never connected is not known here, and nor is a wrong secret
    for (const [token, port] of [
      [unknown.token, unknown.port],
      [unknown.token, 0],
      ['tk_wrong', carried.port],
    ] as const) {
      expect((await hello(platform.server, token, port)).answer).toEqual({ kind: 'error', text: UNAVAILABLE });
    }

    // and the bore-server itself is killed, and comes up on what it has kept
    stream.end();
    await readAll(stream);
    await until(async () => (await platform.metric('bore_server_connections')) === 0, 'all visitors have left');
    let since = Date.now();
    const kept = path.join(platform.dataDir, 'bore-server.s1.state');
    await until(async () => ((await stat(kept).catch(() => undefined))?.mtimeMs ?? 0) > since, 'it is kept', 15_000);
    await platform.server.kill9();
    await platform.startServerAgain({ register: false });
    client = await CarryingClient.start(platform.server, carried.token, carried.port, echo);
    expect(await echoed(carried.port, 'after its restart')).toBe('after its restart');
    expect((await hello(platform.server, unknown.token, unknown.port)).answer.kind).toBe('error');
    back.stop();
    // once more: what a process that has never seen the control plane has carried is kept as well
    since = Date.now();
    await until(async () => ((await stat(kept)).mtimeMs ?? 0) > since, 'it is kept', 15_000);
    await platform.server.kill9();
    await platform.startServerAgain({ register: false });
    client = await CarryingClient.start(platform.server, carried.token, carried.port, echo);

    // it reconciles by itself
    await postgres.startAgain();
    await platform.startBackendAgain();
    await platform.server.waitFor('"msg":"registered"');
    await until(async () => (await platform.stateOf(carried)) === 'active', 'the tunnel is active again');
    const bytes = 'before during '.length + 'a new visitor'.length + 'after its restart'.length;
    await until(async () => (await usageOf(carried.id)).connections === 3, 'all visitors are in the books');
    expect(await usageOf(carried.id)).toEqual({ bytesIn: bytes, bytesOut: bytes, connections: 3 });
    expect(await usageOf(known.id)).toEqual({ bytesIn: 20, bytesOut: 20, connections: 1 });
    expect((await hello(platform.server, unknown.token, unknown.port)).answer.kind).toBe('hello');
    expect(await echoed(carried.port, 'as ever')).toBe('as ever');
    expect(client.port).toBe(carried.port);
  });

  it('a tunnel that was deleted meanwhile is closed when the control plane is back', async () => {
    const tunnel = await platform.open(user);
    const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, echo);
    await platform.backend.kill9();
    await postgres.query(
      `UPDATE tunnels SET state = 'closed', close_reason = 'deleted', closed_at = now(), idle_deadline = NULL WHERE id = $1`,
      [tunnel.id],
    );
    expect(await echoed(tunnel.port, 'still')).toBe('still');
    await platform.startBackendAgain();
    expect(await client.over).toBe('tunnel closed: deleted');
    expect((await hello(platform.server, tunnel.token, tunnel.port)).answer).toEqual({
      kind: 'error',
      text: 'invalid secret',
    });
    // and what was refused stays so without the control plane
    await platform.backend.kill9();
    expect((await hello(platform.server, tunnel.token, tunnel.port)).answer).toEqual({
      kind: 'error',
      text: UNAVAILABLE,
    });
    await platform.startBackendAgain();
    await until(async () => (await user.get('/api/v1/auth/me')).status === 200, 'the backend is back');
    // which took it for lost when its heartbeats stayed away for so long
    const servers = () => postgres.query(`SELECT FROM servers WHERE state = 'online' AND lease_until > now()`);
    await until(async () => (await servers()).length === 1, 'the bore-server is back');
  });
});

describe('a bore-server that restarts while its clients knock', () => {
  it('does not take the word about the process before for one about itself', async () => {
    const tunnel = await platform.open(user);
    await CarryingClient.start(platform.server, tunnel.token, tunnel.port, echo);
    // the backend answers authorize, and not yet the registration
    for (let i = 0; i < 5; i++) {
      await platform.server.kill9();
      await platform.startServerAgain({ register: false });
      await until(
        async () => (await hello(platform.server, tunnel.token, tunnel.port)).answer.kind === 'hello',
        'the client is back',
      );
      await platform.server.waitFor('"msg":"registered"');
    }
    expect(platform.server.exited()).toBe(false);
  });
});
