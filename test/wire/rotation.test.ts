/** Tokens rotated and clients sent away, on the wire of a real bore-server, and with its control plane out of reach. */
import type { Socket } from 'node:net';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { Platform } from '../harness/platform.js';
import { connect, readAll, readExactly } from '../harness/sockets.js';
import { until } from '../harness/until.js';
import { CarryingClient, hello } from '../harness/wire-client.js';

const ADDRESS = '127.0.2.37';
const ROTATED = 'the token of this tunnel was rotated';
const DISCONNECTED = 'disconnected by the owner of this tunnel';
const REFUSED = { kind: 'error', text: 'invalid secret' };
/** What is promised to an owner whose token has leaked. */
const DEAD_MS = 2_000;

let platform: Platform;
let user: Api;

beforeAll(async () => {
  platform = await Platform.start({ address: ADDRESS, ports: { min: 10_000, max: 10_099 } });
  user = await platform.newUser();
});

afterAll(() => platform?.stop());

const echo = (stream: Socket): void => {
  stream.on('error', () => undefined);
  stream.pipe(stream);
};

async function echoed(port: number): Promise<void> {
  const visitor = await connect(ADDRESS, port);
  visitor.end('hello');
  expect((await readAll(visitor)).bytes.toString()).toBe('hello');
}

/** A visitor whose stream runs. */
async function visit(port: number): Promise<Socket> {
  const visitor = await connect(ADDRESS, port);
  visitor.on('error', () => undefined);
  visitor.write('x');
  await readExactly(visitor, 1);
  return visitor;
}

const gone = (visitor: Socket) => until(() => visitor.destroyed, 'the stream is reset', DEAD_MS);

describe('a rotated token', () => {
  it('is dead within two seconds: client and streams end, it is refused, and the new one works at the same port', async () => {
    const tunnel = await platform.open(user);
    const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, echo);
    const visitor = await visit(tunnel.port);
    const began = performance.now();
    const { token } = (await user.post(`/api/v1/tunnels/${tunnel.id}/token`, undefined)).body;
    expect(await client.over).toBe(ROTATED);
    await gone(visitor);
    for (const port of [tunnel.port, 0])
      expect((await hello(platform.server, tunnel.token, port)).answer).toEqual(REFUSED);
    expect(performance.now() - began).toBeLessThan(DEAD_MS);

    await CarryingClient.start(platform.server, token, tunnel.port, echo);
    await echoed(tunnel.port);
    await until(async () => (await platform.stateOf(tunnel)) === 'active', 'the tunnel is active');
  });

  it('is dead when the bore-server hears from a backend, and never was let in by a kept grant after that', async () => {
    const [carried, left] = [await platform.open(user), await platform.open(user)];
    const client = await CarryingClient.start(platform.server, carried.token, carried.port, echo);
    (await CarryingClient.start(platform.server, left.token, left.port, echo)).stop();
    await until(async () => (await platform.stateOf(left)) === 'offline', 'the other client has left');
    // rotated where the bore-server does not hear of it
    await platform.backend.kill9();
    for (const { id } of [carried, left]) {
      await platform.database.query(
        `UPDATE tunnels SET key_version = key_version + 1, fenced_epoch = epoch, fence_reason = 'token_rotated',
           state = 'offline', idle_deadline = now() + interval '1 hour' WHERE id = $1`,
        [id],
      );
    }
    // without a control plane the old ones still work
    const again = await CarryingClient.start(platform.server, left.token, left.port, echo);
    again.stop();
    await platform.startBackendAgain();
    expect(await client.over).toBe(ROTATED);
    await until(
      async () =>
        (
          await platform.database.query(`SELECT FROM tunnels WHERE state = 'active' AND id = ANY ($1)`, [
            [carried.id, left.id],
          ])
        ).length === 0,
      'nothing is active',
    );
    // two heartbeats have been answered: the grants are gone, also for the time without a control plane
    const [beats] = await platform.database.query('SELECT heartbeat_sequence AS n FROM servers');
    await until(
      async () =>
        Number((await platform.database.query('SELECT heartbeat_sequence AS n FROM servers'))[0]?.['n']) >
        Number(beats?.['n']) + 2,
      'heartbeats are answered',
    );
    await platform.backend.kill9();
    for (const { token, port } of [carried, left])
      expect((await hello(platform.server, token, port)).answer.kind).toBe('error');
    await platform.startBackendAgain();
    await until(async () => (await user.get('/api/v1/auth/me')).status === 200, 'the backend is back');
  });
});

describe('disconnecting', () => {
  it('ends client and streams; the client comes back at the same port', async () => {
    const tunnel = await platform.open(user);
    const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, echo);
    const visitor = await visit(tunnel.port);
    expect((await user.post(`/api/v1/tunnels/${tunnel.id}/disconnect`, undefined)).status).toBe(204);
    expect(await client.over).toBe(DISCONNECTED);
    await gone(visitor);
    await CarryingClient.start(platform.server, tunnel.token, tunnel.port, echo);
    await echoed(tunnel.port);
  });

  it('ends streams that have outlived their session', async () => {
    const tunnel = await platform.open(user);
    const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, echo);
    const visitor = await visit(tunnel.port);
    client.stop();
    await until(async () => (await platform.stateOf(tunnel)) === 'offline', 'the client has left');
    visitor.write('y');
    await readExactly(visitor, 1);
    await user.post(`/api/v1/tunnels/${tunnel.id}/disconnect`, undefined);
    await gone(visitor);
  });
});

describe('a tunnel that is deleted while the bore-server cannot be told', () => {
  it('takes streams with it that have outlived their session', async () => {
    const tunnel = await platform.open(user);
    const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, echo);
    const visitor = await visit(tunnel.port);
    client.stop();
    await until(async () => (await platform.stateOf(tunnel)) === 'offline', 'the client has left');
    await platform.database.query(
      `UPDATE tunnels SET state = 'closed', close_reason = 'deleted', closed_at = now(), idle_deadline = NULL WHERE id = $1`,
      [tunnel.id],
    );
    await gone(visitor);
  });
});

describe('a time to live', () => {
  it('ends on the wire when the control plane is away, also one that was set later', async () => {
    const tunnel = await platform.open(user);
    const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, echo);
    const visitor = await visit(tunnel.port);
    await user.patch(`/api/v1/tunnels/${tunnel.id}`, { ttlSeconds: 2 });
    await platform.backend.kill9();
    expect(await client.over).toBe('tunnel closed: expired');
    await gone(visitor);
    expect((await hello(platform.server, tunnel.token, tunnel.port)).answer.kind).toBe('error');
    await platform.startBackendAgain();
  });
});
