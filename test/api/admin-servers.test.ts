import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { Answer, Api } from '../harness/api.js';
import { Platform } from '../harness/platform.js';
import { connect, isRefused, readExactly } from '../harness/sockets.js';
import { until } from '../harness/until.js';
import { CarryingClient, hello } from '../harness/wire-client.js';
import { ControlPlane } from './control-plane.js';
import type { PlaneClient } from './plane-client.js';
import { inTransaction, somebodyWaits } from './transaction.js';

let plane: ControlPlane;
let admin: Api;
let user: Api;
let portMin = 20_400;

beforeAll(async () => {
  plane = await ControlPlane.start({
    backends: 2,
    env: { HOUSEKEEPING_INTERVAL_MS: '100', MAX_TUNNELS_PER_SERVER: '20' },
  });
  admin = await plane.admin();
  user = await plane.newUser();
});

afterAll(() => plane?.stop());

const path = (id: string) => `/api/v1/admin/servers/${id}`;
const get = (id: string) => admin.get(path(id));
const patch = (id: string, body: object, as = admin, headers: Record<string, string> = {}): Promise<Answer> =>
  as.send('PATCH', path(id), JSON.stringify(body), { 'content-type': 'application/json', ...headers });

/** A server with 10 ports of its own. */
async function newServer(id: string, more: object = {}): Promise<PlaneClient> {
  const server = await plane.newServer(id, portMin, 10);
  portMin += 10;
  await server.register({ location: id, ...more });
  return server;
}

/** A tunnel on a server that is asked for by its location, with a session. */
async function newSession(server: PlaneClient) {
  const { body: tunnel } = await user.post('/api/v1/tunnels', { location: server.serverId });
  expect(tunnel.serverId).toBe(server.serverId);
  const session = (await server.authorize(tunnel.token, tunnel.port)).body;
  return { tunnel, session, state: async () => (await user.get(`/api/v1/tunnels/${tunnel.id}`)).body.state };
}

const endLease = (id: string) => plane.database.query('UPDATE servers SET lease_until = now() WHERE id = $1', [id]);
const auditOf = async (id: string) =>
  (
    await plane.database.query(
      `SELECT action FROM audit_log WHERE target_type = 'server' AND target_id = $1 ORDER BY id`,
      [id],
    )
  ).map(({ action }) => action);

describe('a change of a server', () => {
  it('counts at once, and what is left out stays', async () => {
    await newServer('changed');
    const body = { host: 'bore.example.com', location: 'mars', maxBandwidthMbps: 77, maxConcurrentTunnels: 1 };
    expect(await patch('changed', body)).toMatchObject({ status: 200, body: { ...body, state: 'online', version: 1 } });
    expect((await patch('changed', { location: 'changed' })).body).toMatchObject({ ...body, location: 'changed' });
    expect((await user.post('/api/v1/tunnels', { location: 'changed' })).body.serverId).toBe('changed');
    expect((await user.post('/api/v1/tunnels', { location: 'changed' })).body.serverId).not.toBe('changed');
    expect(await auditOf('changed')).toEqual(['server.updated', 'server.updated']);
    for (const wrong of [{}, { state: 'online' }, { maxConcurrentTunnels: 0 }, { host: 'a b' }])
      expect((await patch('changed', wrong)).status).toBe(400);
    expect((await patch('nowhere', body)).status).toBe(404);
    expect((await patch('changed', body, user)).status).toBe(403);
  });

  it('is not hidden by an ETag: what bore-servers and tunnels change is shown to who has read it before', async () => {
    const server = await newServer('busy');
    const etag = (await get('busy')).headers.get('etag') ?? '';
    await newSession(server);
    const again = await admin.send('GET', path('busy'), undefined, { 'if-none-match': etag });
    expect(again).toMatchObject({ status: 200, body: { openTunnels: 1 } });
    // and it is no change that a PATCH must not be based on
    expect(
      (await patch('busy', { location: 'busy' }, admin, { 'if-match': `"999-0000000000000000", ${etag}` })).status,
    ).toBe(200);
    expect((await patch('busy', { location: 'busy' }, admin, { 'if-match': etag })).status).toBe(412);
  });

  it('is one of 20 at the same time, on two backends, that are based on the same version', async () => {
    const server = await newServer('contested');
    const etag = (await get('contested')).headers.get('etag') ?? '';
    // a heartbeat is no change by an administrator
    await server.beat();
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        patch('contested', { maxBandwidthMbps: 100 + i }, admin.at(plane.url(i)), { 'if-match': etag }),
      ),
    );
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(answers.filter(({ body }) => body.code === 'PRECONDITION_FAILED')).toHaveLength(19);
    const won = answers.find(({ status }) => status === 200);
    expect((await get('contested')).body.maxBandwidthMbps).toBe(won?.body.maxBandwidthMbps);
    expect(won?.headers.get('etag')).not.toBe(etag);
    expect(await auditOf('contested')).toEqual(['server.updated']);
  });
});

describe('the limit of a server’s tunnels', () => {
  it('is the least of an administrator’s, its own and its ports, whatever it was before', async () => {
    const body = { id: 'limited', host: 'l.example.com', location: 'limited', maxConcurrentTunnels: 50 };
    expect((await admin.post('/api/v1/admin/servers', body)).body).toMatchObject({ maxConcurrentTunnels: 50 });
    const server = await newServer('limited');
    const limit = async () => (await get('limited')).body;
    // ten ports for now; more later, and the administrator's 50 counts again
    expect(await limit()).toMatchObject({ maxConcurrentTunnels: 10, maxConcurrentTunnelsSet: 50 });
    const wide = { min: 21_000, max: 21_099 };
    expect((await server.register({ portRange: wide })).body.maxTunnels).toBe(50);
    expect((await server.register({ portRange: wide, maxTunnels: 30 })).body.maxTunnels).toBe(30);
    expect((await patch('limited', { maxConcurrentTunnels: 5 })).body).toMatchObject({ maxConcurrentTunnels: 5 });
    expect((await server.register({ portRange: wide, maxTunnels: 30 })).body.maxTunnels).toBe(5);
    // without an administrator's: its own, and without that the setting
    expect((await patch('limited', { maxConcurrentTunnels: null })).body).toMatchObject({
      maxConcurrentTunnels: 30,
      maxConcurrentTunnelsSet: null,
    });
    expect((await server.register({ portRange: wide })).body.maxTunnels).toBe(20);
    await patch('limited', { disabled: true });
  });
});

describe('a disabled server', () => {
  it('gets no tunnel, and its sessions are ended, also those that it brings back', async () => {
    const server = await newServer('off');
    const { tunnel, session, state } = await newSession(server);
    expect(await patch('off', { disabled: true })).toMatchObject({ status: 200, body: { state: 'disabled' } });
    expect(server.calls).toMatchObject([{ path: `/tunnels/${tunnel.id}/close` }]);
    expect(await state()).toBe('offline');
    const beat = await server.beat({ sessions: [session] });
    // in the words of the order, which may come later
    const close = [{ tunnelId: tunnel.id, sessionId: session.sessionId, reason: 'server disabled' }];
    expect(beat.body).toMatchObject({ drain: true, close });
    expect((await server.authorize(tunnel.token, tunnel.port)).body.code).toBe('INVALID_SECRET');
    // by a grant, while it could not ask: until the job looks next
    const byGrant = { ...session, sessionId: '6f1bd1f6-54a1-4f0e-9d4c-1f1f3ad0a001', epoch: session.epoch + 5 };
    await server.beat({ sessions: [byGrant] });
    await until(async () => (await state()) === 'offline', 'the job takes it offline');
    expect((await server.beat({ sessions: [byGrant] })).body.close).toHaveLength(1);
    expect(await state()).toBe('offline');
    // nor does a restart bring it back
    await server.register();
    expect((await get('off')).body.state).toBe('disabled');
    expect((await user.post('/api/v1/tunnels', { port: tunnel.port ^ 1 })).body.code).toBe('NO_CAPACITY');

    expect((await patch('off', { disabled: false })).body.state).toBe('offline');
    await server.beat();
    expect((await get('off')).body.state).toBe('online');
    expect((await server.authorize(tunnel.token, tunnel.port)).status).toBe(200);
    expect(await state()).toBe('active');
  });

  it('ends tunnels and visitors on the wire, and serves their clients again when it is enabled', async () => {
    const platform = await Platform.start({
      address: '127.0.4.72',
      ports: { min: 20_210, max: 20_219 },
      env: { ADMIN_EMAIL: 'admin@example.com', ADMIN_PASSWORD: 'correct horse battery' },
    });
    try {
      const owner = await platform.newUser();
      const { body: login } = await owner.post('/api/v1/auth/login', {
        email: 'admin@example.com',
        password: 'correct horse battery',
      });
      const as = owner.withToken(login.accessToken);
      const tunnel = await platform.open(owner);
      const start = () =>
        CarryingClient.start(platform.server, tunnel.token, tunnel.port, (stream) => stream.pipe(stream));
      const client = await start();
      const visitor = await connect('127.0.4.72', tunnel.port);
      visitor.write('ping');
      expect(String(await readExactly(visitor, 4))).toBe('ping');
      const gone = new Promise((resolve) => visitor.once('close', resolve).resume());
      expect((await patch('s1', { disabled: true }, as)).status).toBe(200);
      expect(await client.over).toBe('tunnel closed: server disabled');
      await gone;
      await until(() => isRefused('127.0.4.72', tunnel.port), 'nobody listens at the public port');
      expect((await hello(platform.server, tunnel.token, tunnel.port)).answer).toEqual({
        kind: 'error',
        text: 'invalid secret',
      });
      await patch('s1', { disabled: false }, as);
      await until(async () => (await as.get(path('s1'))).body.state === 'online', 'its heartbeat brings it back');
      (await start()).stop();
    } finally {
      await platform.stop();
    }
  });
});

describe('deleting a server', () => {
  it('is refused while it runs or has open tunnels; its history stays, and its id is free', async () => {
    const server = await newServer('gone');
    const { tunnel } = await newSession(server);
    expect(await admin.delete(path('gone'))).toMatchObject({ status: 409, body: { code: 'SERVER_IN_USE' } });
    await endLease('gone');
    expect((await admin.delete(path('gone'))).status).toBe(409);
    await user.delete(`/api/v1/tunnels/${tunnel.id}`);
    expect((await user.delete(path('gone'))).status).toBe(403);
    expect((await admin.delete(path('gone'))).status).toBe(204);

    expect((await get('gone')).status).toBe(404);
    expect((await admin.delete(path('gone'))).status).toBe(404);
    expect((await patch('gone', { disabled: true })).status).toBe(404);
    expect((await admin.post(`${path('gone')}/drain`, undefined)).status).toBe(404);
    expect(
      (await admin.get('/api/v1/admin/servers?limit=100')).body.items.map(({ id }: { id: string }) => id),
    ).not.toContain('gone');
    expect((await user.get(`/api/v1/tunnels/${tunnel.id}`)).body).toMatchObject({ state: 'closed', serverId: 'gone' });
    expect((await server.beat()).body.code).toBe('SERVER_UNKNOWN');

    const body = { id: 'gone', host: 'new.example.com', location: 'new', maxConcurrentTunnels: 3 };
    expect(await admin.post('/api/v1/admin/servers', body)).toMatchObject({
      status: 201,
      body: { ...body, state: 'offline', openTunnels: 0, portRange: null },
    });
    expect((await admin.post('/api/v1/admin/servers', body)).body.code).toBe('SERVER_EXISTS');
    expect((await admin.delete(path('gone'))).status).toBe(204);
    // one that nobody announced may register too
    await server.register();
    expect((await get('gone')).body.state).toBe('online');
    expect(await auditOf('gone')).toEqual(['server.deleted', 'server.created', 'server.deleted']);
  });

  it('waits for a tunnel that is being opened there, and is refused then', async () => {
    await newServer('race');
    await endLease('race');
    await inTransaction(plane.database, async (client) => {
      await client.query(
        `INSERT INTO tunnels (id, user_id, server_id, port, sealed_key) SELECT gen_random_uuid(), id, 'race', 20400, '' FROM users LIMIT 1`,
      );
      const deleting = admin.delete(path('race'));
      await somebodyWaits(plane.database);
      await client.query('COMMIT');
      expect(await deleting).toMatchObject({ status: 409, body: { code: 'SERVER_IN_USE' } });
    });
  });
});

describe('draining', () => {
  it('is in the audit log', async () => {
    await newServer('drained');
    await admin.post(`${path('drained')}/drain`, undefined);
    await admin.post(`${path('drained')}/undrain`, undefined);
    expect(await auditOf('drained')).toEqual(['server.drained', 'server.undrained']);
    expect((await get('drained')).body.version).toBe(2);
  });
});

describe('the list of servers', () => {
  it('is filtered as they are shown, and sorted', async () => {
    for (const id of ['list-a', 'list-b', 'list-c', 'list-d']) await newServer(id, { location: 'list' });
    await endLease('list-a');
    await patch('list-b', { disabled: true });
    await endLease('list-b');
    await admin.post(`${path('list-c')}/drain`, undefined);
    const ids = async (query: string) =>
      (await admin.get(`/api/v1/admin/servers?location=list&${query}`)).body.items.map(({ id }: { id: string }) => id);
    expect(await ids('')).toEqual(['list-a', 'list-b', 'list-c', 'list-d']);
    expect(await ids('sort=-id')).toEqual(['list-d', 'list-c', 'list-b', 'list-a']);
    expect(await ids('state=offline')).toEqual(['list-a']);
    expect(await ids('state=disabled')).toEqual(['list-b']);
    expect(await ids('state=draining')).toEqual(['list-c']);
    expect(await ids('state=online')).toEqual(['list-d']);
    const { nextCursor } = (await admin.get('/api/v1/admin/servers?location=list&sort=-id&limit=2')).body;
    expect(await ids(`sort=-id&cursor=${nextCursor}`)).toEqual(['list-b', 'list-a']);
  });
});

describe('a server whose lease ends just as its heartbeat arrives', () => {
  it('keeps its tunnels active', async () => {
    const server = await newServer('late');
    const { state } = await newSession(server);
    await newServer('witness');
    const looked = async () => {
      await plane.database.query(`UPDATE servers SET state = 'online', lease_until = now() WHERE id = 'witness'`);
      const offline = async () =>
        (await plane.database.query(`SELECT state FROM servers WHERE id = 'witness'`))[0]?.['state'] === 'offline';
      await until(offline, 'the job has looked');
    };
    await inTransaction(plane.database, async (client) => {
      // ends in a moment, so that the lock of the heartbeat is there before
      await plane.database.query(`UPDATE servers SET lease_until = now() + interval '2 s' WHERE id = 'late'`);
      const held = await client.query(
        `SELECT FROM servers WHERE id = 'late' AND lease_until > clock_timestamp() FOR NO KEY UPDATE`,
      );
      expect(held.rowCount).toBe(1);
      const over = `SELECT lease_until < clock_timestamp() AS over FROM servers WHERE id = 'late'`;
      await until(async () => (await plane.database.query(over))[0]?.['over'], 'its lease has ended');
      // twice: the second time says that the first has looked at tunnels too
      await looked();
      await looked();
      await client.query(`UPDATE servers SET lease_until = now() + interval '1 hour' WHERE id = 'late'`);
      await client.query('COMMIT');
    });
    expect(await state()).toBe('active');
  });
});
