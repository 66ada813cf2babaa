/** Rotating a token and sending a client away, as owners and bore-servers see it; on the wire: test/wire/rotation.test.ts. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { randomUuid } from '../../src/protocol/challenge.js';
import { FENCE_ALL } from '../../src/protocol/plane-api.js';
import type { Api } from '../harness/api.js';
import { SECRETS } from '../harness/backend.js';
import { ControlPlane } from './control-plane.js';
import type { PlaneClient } from './plane-client.js';

let plane: ControlPlane;
let server: PlaneClient;
let user: Api;

beforeAll(async () => {
  plane = await ControlPlane.start({ backends: 2 });
  server = await plane.newServer('s1', 10_000, 1_000);
});

afterAll(() => plane?.stop());

beforeEach(async () => {
  user = await plane.newUser();
  server.calls.length = 0;
  server.unreachable = false;
});

const open = async (body: object = {}) => (await user.post('/api/v1/tunnels', body)).body;
const rotate = (id: string, as = user) => as.post(`/api/v1/tunnels/${id}/token`, undefined);
const disconnect = (id: string, as = user) => as.post(`/api/v1/tunnels/${id}/disconnect`, undefined);
const stateOf = async (id: string) => (await user.get(`/api/v1/tunnels/${id}`)).body.state;
const connect = async (token: string, port: number) => (await server.authorize(token, port)).body;
const actionsOn = async (id: string) =>
  (await plane.database.query(`SELECT action FROM audit_log WHERE target_id = $1 ORDER BY id`, [id])).map(
    ({ action }) => action,
  );

describe('rotating a token', () => {
  it('shows the new one once, with its command; the old one is refused, the new one keeps the port', async () => {
    const opened = await open({ localPort: 8080 });
    const rotated = await rotate(opened.id);
    expect(rotated).toMatchObject({ status: 200, body: { id: opened.id, port: opened.port, state: 'pending' } });
    expect(rotated.headers.get('cache-control')).toBe('no-store');
    const { token, command } = rotated.body;
    expect(token).toMatch(/^tk_[\w-]{43}$/);
    expect(token).not.toBe(opened.token);
    expect(command).toBe(opened.command.replace(opened.token, token));
    expect((await user.get(`/api/v1/tunnels/${opened.id}`)).text).not.toContain(token);

    for (const port of [opened.port, 0]) {
      expect(await server.authorize(opened.token, port)).toMatchObject({
        status: 403,
        body: { code: 'INVALID_SECRET' },
      });
    }
    expect(await connect(token, 0)).toMatchObject({ port: opened.port, keyVersion: 1 });
    expect(await actionsOn(opened.id)).toEqual(['tunnel.opened', 'tunnel.token_rotated']);
  });

  it('tells the bore-server before the answer, and ends the session at once', async () => {
    const { id, token, port } = await open();
    const session = await connect(token, port);
    expect(await stateOf(id)).toBe('active');
    await rotate(id);
    expect(server.calls).toMatchObject([{ path: `/tunnels/${id}/fence`, key: SECRETS.INTERNAL_API_KEY }]);
    expect(JSON.parse(server.calls[0]?.body ?? '')).toEqual({
      epoch: session.epoch,
      keyVersion: 1,
      reason: 'token_rotated',
    });
    expect(await stateOf(id)).toBe('offline');
  });

  it('is told by heartbeat when the bore-server could not be reached: of sessions, however late, and of grants', async () => {
    const { id, token, port } = await open();
    const session = await connect(token, port);
    server.unreachable = true;
    const rotated = (await rotate(id)).body;
    // without us it has let the old token in again, twice
    const later = { ...session, sessionId: randomUuid(), epoch: session.epoch + 2 };
    for (const carried of [session, later]) {
      const { body } = await server.beat({ sessions: [carried], url: plane.url(1) });
      expect(body).toMatchObject({
        close: [{ sessionId: carried.sessionId, reason: 'token_rotated' }],
        fences: [{ tunnelId: id, epoch: session.epoch, keyVersion: 1, reason: 'token_rotated' }],
      });
      expect(await stateOf(id)).toBe('offline');
    }
    const kept = (await server.beat({ kept: [session] })).body;
    expect(kept.fences).toMatchObject([{ tunnelId: id, keyVersion: 1, reason: 'token_rotated' }]);

    const fresh = await connect(rotated.token, port);
    expect((await server.beat({ sessions: [fresh] })).body).toMatchObject({ close: [], fences: [] });
    // one of an older release says nothing of keys: what is current stays
    expect(
      (await server.heartbeat([{ tunnelId: id, sessionId: fresh.sessionId, epoch: fresh.epoch }])).body,
    ).toMatchObject({
      close: [],
      fences: [],
    });
    expect(await stateOf(id)).toBe('active');
  });

  it('leaves one working token of 20 rotations at the same time over 2 backends: the last', async () => {
    const { id, token, port } = await open();
    const users = [user, user.at(plane.url(1))];
    const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => rotate(id, users[i % 2])));
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 20 }, () => 200));
    const tokens = [token, ...answers.map(({ body }) => body.token)];
    expect(new Set(tokens).size).toBe(21);
    const statuses = await Promise.all(tokens.map(async (one) => (await server.authorize(one, port)).status));
    expect(statuses.filter((status) => status === 200)).toHaveLength(1);
    const [row] = await plane.database.query('SELECT key_version FROM tunnels WHERE id = $1', [id]);
    expect(row?.['key_version']).toBe(20);
    const order = server.calls.map(({ body }) => JSON.parse(body).keyVersion);
    expect(Math.max(...order)).toBe(20);
  });

  it('never leaves a session of the old token, though clients connect at the same moment (30 rounds)', async () => {
    for (let round = 0; round < 30; round++) {
      const { id, token, port } = await open();
      const [session, rotated] = await Promise.all([server.authorize(token, port), rotate(id)]);
      const { body } = await server.beat({ sessions: session.status === 200 ? [session.body] : [] });
      expect(body.close).toHaveLength(session.status === 200 ? 1 : 0);
      expect(await stateOf(id)).not.toBe('active');
      expect((await server.authorize(rotated.body.token, port)).status).toBe(200);
      await user.delete(`/api/v1/tunnels/${id}`);
    }
  });

  it('is refused for a closed tunnel, and for one of somebody else', async () => {
    const { id, token, port } = await open();
    expect(await rotate(id, await plane.newUser())).toMatchObject({ status: 404, body: { code: 'NOT_FOUND' } });
    expect((await server.authorize(token, port)).status).toBe(200);
    await user.delete(`/api/v1/tunnels/${id}`);
    expect(await rotate(id)).toMatchObject({ status: 409, body: { code: 'TUNNEL_CLOSED' } });
  });
});

describe('disconnecting', () => {
  it('ends the session that is current, and the client may come back at once', async () => {
    const { id, token, port } = await open();
    const session = await connect(token, port);
    expect(await disconnect(id)).toMatchObject({ status: 204, text: '' });
    expect(server.calls).toMatchObject([{ path: `/tunnels/${id}/fence` }]);
    expect(JSON.parse(server.calls[0]?.body ?? '')).toEqual({
      epoch: session.epoch,
      keyVersion: 0,
      reason: 'disconnected',
    });
    expect(await stateOf(id)).toBe('offline');
    expect((await server.authorize(token, port)).status).toBe(200);
    expect(await stateOf(id)).toBe('active');
  });

  it('does nothing when nobody is connected', async () => {
    const { id } = await open();
    for (let i = 0; i < 2; i++) expect((await disconnect(id)).status).toBe(204);
    expect(await stateOf(id)).toBe('pending');
    await user.delete(`/api/v1/tunnels/${id}`);
    expect((await disconnect(id)).status).toBe(204);
    expect(await stateOf(id)).toBe('closed');
    expect(await actionsOn(id)).toEqual(['tunnel.opened', 'tunnel.closed']);
    expect((await disconnect(randomUuid())).status).toBe(404);
    expect((await disconnect((await open()).id, await plane.newUser())).status).toBe(404);
  });

  it('is told by heartbeat when the bore-server could not be reached, and never ends a later session (G3)', async () => {
    const { id, token, port } = await open();
    const session = await connect(token, port);
    server.unreachable = true;
    expect((await disconnect(id)).status).toBe(204);
    const told = (await server.beat({ sessions: [session] })).body;
    expect(told).toMatchObject({
      close: [{ sessionId: session.sessionId, reason: 'disconnected' }],
      fences: [{ tunnelId: id, epoch: session.epoch, reason: 'disconnected' }],
    });
    expect(await stateOf(id)).toBe('offline');
    // the client came back without us before the heartbeat
    const later = { ...session, sessionId: randomUuid(), epoch: session.epoch + 1 };
    expect((await server.beat({ sessions: [later] })).body).toMatchObject({ close: [], fences: [] });
    expect(await stateOf(id)).toBe('active');
    expect(await actionsOn(id)).toEqual(['tunnel.opened', 'tunnel.disconnected']);
  });
});

describe('what a bore-server keeps of tunnels without a session', () => {
  it('is ended by the heartbeat when the tunnel is closed or unknown, and its settings are kept up to date', async () => {
    const [closed, changed, same] = [await open(), await open(), await open()];
    const grants = [];
    for (const { token, port } of [closed, changed, same]) grants.push(await connect(token, port));
    await server.beat({ ended: grants });
    // told: a third failure in a row would open the circuit breaker
    await user.patch(`/api/v1/tunnels/${closed.id}`, { maxConnections: 5 });
    server.unreachable = true;
    await user.delete(`/api/v1/tunnels/${closed.id}`);
    const { expiresAt } = (await user.patch(`/api/v1/tunnels/${changed.id}`, { ttlSeconds: 60 })).body;
    const unknown = { ...grants[0], tunnelId: randomUuid() };
    const { body } = await server.beat({ kept: [...grants, unknown] });
    expect(body.fences).toHaveLength(2);
    expect(body.fences).toEqual(
      expect.arrayContaining([
        { tunnelId: closed.id, epoch: FENCE_ALL, keyVersion: FENCE_ALL, reason: 'deleted' },
        { tunnelId: unknown.tunnelId, epoch: FENCE_ALL, keyVersion: FENCE_ALL, reason: 'unknown' },
      ]),
    );
    expect(body.update).toMatchObject([{ tunnelId: changed.id, settings: { version: 1, expiresAt } }]);
    expect(await stateOf(same.id)).toBe('offline');
  });
});

describe('the list of client sessions', () => {
  const sessions = async (id: string, query = '') => (await user.get(`/api/v1/tunnels/${id}/sessions${query}`)).body;

  it('has each session from its beginning to its end, newest first, by pages', async () => {
    const { id, token, port } = await open();
    expect(await sessions(id)).toEqual({ items: [], nextCursor: null });
    const first = await connect(token, port);
    const second = await connect(token, port);
    await server.beat({ sessions: [second] });
    await server.beat({ ended: [second] });
    const third = await connect(token, port);
    const { items } = await sessions(id);
    expect(items.map((item: { id: string }) => item.id)).toEqual(
      [third, second, first].map((grant) => grant.sessionId),
    );
    expect(items[0]).toMatchObject({ epoch: 3, serverId: 's1', clientAddress: '127.0.0.1', disconnectedAt: null });
    for (const ended of items.slice(1)) expect(ended.disconnectedAt >= ended.connectedAt).toBe(true);

    const page = await sessions(id, '?limit=2');
    expect(page.items).toHaveLength(2);
    expect(await sessions(id, `?limit=2&cursor=${page.nextCursor}`)).toEqual({ items: [items[2]], nextCursor: null });
    expect((await user.get(`/api/v1/tunnels/${id}/sessions?cursor=bm8`)).status).toBe(400);
    await user.delete(`/api/v1/tunnels/${id}`);
    expect((await sessions(id)).items[0].disconnectedAt).not.toBeNull();
    expect((await (await plane.newUser()).get(`/api/v1/tunnels/${id}/sessions`)).status).toBe(404);
  });

  it('shows one that was thought gone as going on, and one that began without us without its client', async () => {
    const { id, token, port } = await open();
    const session = await connect(token, port);
    await plane.database.query(
      `UPDATE tunnels SET state = 'offline', idle_deadline = now() + interval '1h' WHERE id = $1`,
      [id],
    );
    expect((await sessions(id)).items[0].disconnectedAt).not.toBeNull();
    await server.beat({ sessions: [session] });
    expect((await sessions(id)).items).toMatchObject([{ id: session.sessionId, disconnectedAt: null }]);
    const own = { ...session, sessionId: randomUuid(), epoch: session.epoch + 3 };
    await server.beat({ sessions: [own] });
    expect((await sessions(id)).items).toMatchObject([
      { id: own.sessionId, epoch: own.epoch, clientAddress: null, disconnectedAt: null },
      { id: session.sessionId },
    ]);
  });
});
