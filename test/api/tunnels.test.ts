import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { type Backend, SECRETS, startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { until } from '../harness/until.js';
import { PlaneClient } from './plane-client.js';

const PASSWORD = 'correct horse battery';
const PORTS = { min: 10_000, max: 10_009 };

let database: TestDatabase;
let backend: Backend;
let admin: Api;
let server: PlaneClient;
const planes: PlaneClient[] = [];
let users = 0;

beforeAll(async () => {
  database = await createDatabase();
  backend = await startBackend({
    database,
    env: {
      ADMIN_EMAIL: 'admin@example.com',
      ADMIN_PASSWORD: PASSWORD,
      RESERVED_CAPACITY_PERCENT: '0',
      PLAN_FREE_TUNNELS: '3',
      HEARTBEAT_INTERVAL_MS: '200',
      SERVER_LEASE_SECONDS: '600',
      HOUSEKEEPING_INTERVAL_MS: '100',
    },
  });
  const login = await new Api(backend.url).post('/api/v1/auth/login', {
    email: 'admin@example.com',
    password: PASSWORD,
  });
  admin = new Api(backend.url).withToken(login.body.accessToken);
  server = newServer('s1', PORTS);
  await server.register({ location: 'eu' });
});

afterAll(async () => {
  for (const plane of planes) plane.close();
  await backend?.stop();
  await database?.drop();
});

function newServer(id: string, ports: { min: number; max: number }): PlaneClient {
  const plane = new PlaneClient(backend.url, SECRETS.INTERNAL_API_KEY, id, ports);
  planes.push(plane);
  return plane;
}

async function newUser(): Promise<Api> {
  const { body } = await new Api(backend.url).post('/api/v1/auth/signup', {
    email: `user${users++}@example.com`,
    password: PASSWORD,
  });
  return new Api(backend.url).withToken(body.accessToken);
}

const open = (user: Api, body: object = {}) => user.post('/api/v1/tunnels', body);

async function closeAll(user: Api): Promise<void> {
  const { body } = await user.get('/api/v1/tunnels?limit=100');
  for (const { id } of body.items) await user.delete(`/api/v1/tunnels/${id}`);
}

describe('servers', () => {
  it('are announced by an administrator as the specification shows, and online when they register', async () => {
    const body = {
      id: 'server-us-east-1',
      host: 'bore1.yourdomain.com',
      port: 7835,
      location: 'us-east-1',
      maxBandwidthMbps: 1000,
      maxConcurrentTunnels: 100,
    };
    expect(await admin.post('/api/v1/admin/servers', body)).toMatchObject({
      status: 201,
      body: { ...body, state: 'offline', portRange: null },
    });
    expect(await admin.post('/api/v1/admin/servers', body)).toMatchObject({
      status: 409,
      body: { code: 'SERVER_EXISTS' },
    });

    const announced = newServer(body.id, { min: 11_000, max: 11_999 });
    expect((await announced.register({ host: undefined })).body.maxTunnels).toBe(100);
    expect(await admin.get(`/api/v1/admin/servers/${body.id}`)).toMatchObject({
      status: 200,
      body: { ...body, state: 'online', portRange: { min: 11_000, max: 11_999 } },
    });
    expect((await admin.get('/api/v1/admin/servers')).body.items.map(({ id }: { id: string }) => id)).toContain(
      body.id,
    );
    await database.query(`UPDATE servers SET state = 'disabled' WHERE id = '${body.id}'`);
  });

  it('are no business of ordinary users, nor the internal API of anybody without its key', async () => {
    const user = await newUser();
    expect(await user.get('/api/v1/admin/servers')).toMatchObject({ status: 403, body: { code: 'FORBIDDEN' } });
    expect((await new Api(backend.url).get('/api/v1/admin/servers')).status).toBe(401);
    const impostor = new PlaneClient(backend.url, 'x'.repeat(40), 's1', PORTS);
    expect(await impostor.register()).toMatchObject({ status: 401, body: { code: 'INVALID_INTERNAL_KEY' } });
    expect((await admin.post('/api/v1/internal/servers/register', {})).status).toBe(401);
  });

  it('are offline when their lease ends, and online again with their next heartbeat', async () => {
    const short = newServer('short', { min: 12_000, max: 12_001 });
    await short.register();
    await database.query(`UPDATE servers SET lease_until = now() WHERE id = 'short'`);
    const state = async () => (await database.query(`SELECT state FROM servers WHERE id = 'short'`))[0]?.state;
    await until(async () => (await state()) === 'offline', 'the job marks the server offline');
    expect((await short.heartbeat()).status).toBe(200);
    expect(await state()).toBe('online');
    await database.query(`UPDATE servers SET state = 'disabled' WHERE id = 'short'`);
  });

  it('are held by one process: the newest', async () => {
    const older = newServer('fenced', { min: 12_100, max: 12_101 });
    const newer = newServer('fenced', { min: 12_100, max: 12_101 });
    expect(await older.heartbeat()).toMatchObject({ status: 404, body: { code: 'SERVER_UNKNOWN' } });
    await older.register();
    await newer.register();
    expect(await older.heartbeat()).toMatchObject({ status: 409, body: { code: 'SERVER_SUPERSEDED' } });
    expect(await older.authorize('tk_x', 0)).toMatchObject({ status: 409, body: { code: 'SERVER_SUPERSEDED' } });
    expect((await newer.heartbeat()).status).toBe(200);
    await database.query(`UPDATE servers SET state = 'disabled' WHERE id = 'fenced'`);
  });
});

describe('opening a tunnel', () => {
  it('answers with what a client needs, and shows the token once', async () => {
    const user = await newUser();
    const opened = await open(user, { name: 'web', localPort: 8080, location: 'eu' });
    expect(opened).toMatchObject({
      status: 201,
      body: {
        name: 'web',
        state: 'pending',
        host: '127.0.0.1',
        controlPort: 7835,
        serverId: 's1',
        location: 'eu',
        localPort: 8080,
      },
    });
    const { id, port, token, command, publicAddress } = opened.body;
    expect(token).toMatch(/^tk_[\w-]{43}$/);
    expect(publicAddress).toBe(`127.0.0.1:${port}`);
    expect(command).toBe(`bore local 8080 --to 127.0.0.1 --port ${port} --secret ${token}`);

    const { token: _, command: __, ...view } = opened.body;
    expect((await user.get(`/api/v1/tunnels/${id}`)).body).toEqual(view);
    expect((await user.get('/api/v1/tunnels')).body).toEqual({ items: [view], nextCursor: null });
    const dump = JSON.stringify(await database.query(`SELECT t.*, encode(sealed_key, 'hex') FROM tunnels t`));
    expect(dump).not.toContain(token);
    expect(backend.output()).not.toContain(token);
    await closeAll(user);
  });

  it('refuses with the code that says why', async () => {
    const [user, other] = [await newUser(), await newUser()];
    const first = await open(user, { name: 'a', port: 10_003 });
    expect(first.body.port).toBe(10_003);
    expect(await open(user, { name: 'a' })).toMatchObject({ status: 409, body: { code: 'NAME_TAKEN' } });
    expect((await open(other, { name: 'a' })).status).toBe(201);
    expect(await open(other, { port: 10_003 })).toMatchObject({ status: 409, body: { code: 'PORT_TAKEN' } });
    expect(await open(other, { port: 9_999 })).toMatchObject({ status: 422, body: { code: 'PORT_OUT_OF_RANGE' } });
    await open(user);
    await open(user);
    expect(await open(user)).toMatchObject({
      status: 429,
      body: { code: 'QUOTA_EXCEEDED', detail: 'The plan free allows 3 open tunnels' },
    });
    await closeAll(user);
    await closeAll(other);
  });

  it('refuses with 503 and Retry-After when every server is full, and opens again when a tunnel closes', async () => {
    const all = await Promise.all(Array.from({ length: 4 }, newUser));
    for (let i = 0; i < 10; i++) expect((await open(all[i % 4] ?? admin)).status).toBe(201);
    const refused = await open(all[3] ?? admin);
    expect(refused).toMatchObject({ status: 503, body: { code: 'NO_CAPACITY', retryAfter: 30 } });
    expect(refused.headers.get('retry-after')).toBe('30');
    expect((await all[3]?.get('/api/v1/capacity'))?.body).toMatchObject({ capacity: 10, open: 10, free: 0 });

    const { body } = await (all[0] ?? admin).get('/api/v1/tunnels');
    await all[0]?.delete(`/api/v1/tunnels/${body.items[0].id}`);
    expect((await open(all[3] ?? admin)).body.port).toBe(body.items[0].port);
    for (const user of all) await closeAll(user);
  });

  it('pages through a list without gap or repeat, while it grows', async () => {
    const user = await newUser();
    const ids: string[] = [];
    for (let i = 0; i < 3; i++) ids.unshift((await open(user)).body.id);
    const first = (await user.get('/api/v1/tunnels?limit=2')).body;
    await user.delete(`/api/v1/tunnels/${ids[0]}`);
    await open(user);
    const second = (await user.get(`/api/v1/tunnels?limit=2&cursor=${first.nextCursor}`)).body;
    expect([...first.items, ...second.items].map(({ id }: { id: string }) => id)).toEqual(ids);
    expect(second.nextCursor).toBeNull();
    expect((await user.get('/api/v1/tunnels?cursor=nonsense')).status).toBe(400);
    expect((await user.get('/api/v1/tunnels?limit=101')).status).toBe(400);
    await closeAll(user);
  });
});

describe('somebody else’s tunnel', () => {
  it('is not there', async () => {
    const [owner, other] = [await newUser(), await newUser()];
    const { id } = (await open(owner)).body;
    for (const user of [other, admin]) {
      expect(await user.get(`/api/v1/tunnels/${id}`)).toMatchObject({ status: 404, body: { code: 'NOT_FOUND' } });
      expect((await user.delete(`/api/v1/tunnels/${id}`)).status).toBe(404);
      expect((await user.get('/api/v1/tunnels')).body.items).toEqual([]);
    }
    expect((await owner.get(`/api/v1/tunnels/${id}`)).body.state).toBe('pending');
    await closeAll(owner);
  });
});

describe('client sessions', () => {
  const stateOf = async (user: Api, id: string) => (await user.get(`/api/v1/tunnels/${id}`)).body.state;

  it('begin with the right secret, at the named port or found by the secret alone', async () => {
    const [user, other] = [await newUser(), await newUser()];
    const { id, token, port } = (await open(user)).body;
    const foreign = (await open(other)).body;

    expect(await server.authorize('tk_wrong', port)).toMatchObject({ status: 403, body: { code: 'INVALID_SECRET' } });
    expect((await server.authorize(token, foreign.port)).status).toBe(403);
    expect((await server.authorize('tk_wrong', 0)).status).toBe(403);
    expect(await server.authorize(token, port)).toMatchObject({ status: 200, body: { tunnelId: id, port, epoch: 1 } });
    expect(await server.authorize(token, 0)).toMatchObject({ status: 200, body: { tunnelId: id, port, epoch: 2 } });
    expect(await stateOf(user, id)).toBe('active');
    await user.delete(`/api/v1/tunnels/${id}`);
    expect((await server.authorize(token, port)).status).toBe(403);
    await closeAll(other);
  });

  it('that are old change nothing about the new one, however late or often they are reported (G3)', async () => {
    const user = await newUser();
    const { id, token, port } = (await open(user)).body;
    const older = (await server.authorize(token, port)).body;
    const newer = (await server.authorize(token, port)).body;

    // the old session's end, reported twice after the new one began
    await server.heartbeat([newer], [older]);
    await server.heartbeat([newer], [older]);
    expect(await stateOf(user, id)).toBe('active');
    // a session that lost the tunnel is ordered to close; the one that has it is not
    expect((await server.heartbeat([older])).body.close).toMatchObject([
      { sessionId: older.sessionId, reason: 'superseded' },
    ]);
    expect((await server.heartbeat([newer])).body.close).toEqual([]);

    await server.heartbeat([], [newer]);
    expect(await stateOf(user, id)).toBe('offline');
    // a heartbeat written before that end, arriving after it
    expect((await server.heartbeat([newer], [], 1)).body).toEqual({
      drain: false,
      close: [],
      fences: [],
      update: [],
      reported: null,
    });
    expect(await stateOf(user, id)).toBe('offline');
    await closeAll(user);
  });

  it('that the control plane had given up come back with the next heartbeat', async () => {
    const user = await newUser();
    const { id, token, port } = (await open(user)).body;
    const session = (await server.authorize(token, port)).body;
    await database.query(
      `UPDATE tunnels SET state = 'offline', idle_deadline = now() + interval '1 hour' WHERE id = '${id}'`,
    );
    await server.heartbeat([session]);
    expect(await stateOf(user, id)).toBe('active');
    // begun without the backend, on a cached grant
    const begunAlone = { ...session, epoch: session.epoch + 1, sessionId: '11111111-1111-4111-8111-111111111111' };
    expect((await server.heartbeat([begunAlone])).body.close).toEqual([]);
    expect((await server.authorize(token, port)).body.epoch).toBe(session.epoch + 2);
    await closeAll(user);
  });

  it('of a closed tunnel are ordered to end, with the reason', async () => {
    const user = await newUser();
    const { id, token, port } = (await open(user)).body;
    const session = (await server.authorize(token, port)).body;
    await user.delete(`/api/v1/tunnels/${id}`);
    expect(server.calls.at(-1)).toEqual({
      path: `/tunnels/${id}/close`,
      key: SECRETS.INTERNAL_API_KEY,
      body: '{"reason":"deleted"}',
    });
    expect((await server.heartbeat([session])).body.close).toMatchObject([{ tunnelId: id, reason: 'deleted' }]);
  });

  it('that were granted and never carried go offline after a while', async () => {
    const user = await newUser();
    const { id, token, port } = (await open(user)).body;
    await server.authorize(token, port);
    await server.heartbeat([]);
    expect(await stateOf(user, id)).toBe('active');
    await database.query(`UPDATE tunnels SET connected_at = connected_at - interval '1 minute' WHERE id = '${id}'`);
    await server.heartbeat([]);
    expect(await stateOf(user, id)).toBe('offline');
    await closeAll(user);
  });
});

describe('a tunnel whose key cannot be opened', () => {
  it('cannot connect, and keeps nobody else from it', async () => {
    const user = await newUser();
    const [broken, whole] = [(await open(user)).body, (await open(user)).body];
    await database.query(
      `UPDATE tunnels SET sealed_key = set_byte(sealed_key, 1, get_byte(sealed_key, 1) # 255) WHERE id = $1`,
      [broken.id],
    );
    expect(await server.authorize(broken.token, broken.port)).toMatchObject({
      status: 403,
      body: { code: 'INVALID_SECRET' },
    });
    expect((await server.authorize(whole.token, 0)).status).toBe(200);
    await closeAll(user);
  });
});

describe('a server that is lost, and full', () => {
  it('does not use up the capacity of the others', async () => {
    const full = newServer('full', { min: 12_300, max: 12_319 });
    await full.register();
    const users = await Promise.all(Array.from({ length: 7 }, newUser));
    for (let i = 0; i < 20; i++) await open(users[i % 7] ?? admin, { port: 12_300 + i });
    await database.query(`UPDATE servers SET lease_until = now() WHERE id = 'full'`);
    const other = await newUser();
    // s1 has ten ports, and nobody is there
    expect((await other.get('/api/v1/capacity')).body.free).toBe(10);
    expect((await open(other)).status).toBe(201);
    for (const user of [...users, other]) await closeAll(user);
    await database.query(`UPDATE servers SET state = 'disabled' WHERE id = 'full'`);
  });
});

describe('time', () => {
  const closed = (user: Api, id: string) =>
    until(async () => {
      const { body } = await user.get(`/api/v1/tunnels/${id}`);
      return body.state === 'closed' && body.closeReason;
    }, 'the tunnel is closed');

  it('closes tunnels that expire, and tunnels nobody comes for', async () => {
    const user = await newUser();
    const { id: short } = (await open(user, { ttlSeconds: 1 })).body;
    const { id: abandoned } = (await open(user)).body;
    await database.query(`UPDATE tunnels SET idle_deadline = now() WHERE id = '${abandoned}'`);
    expect(await closed(user, abandoned)).toBe('abandoned');
    expect(await closed(user, short)).toBe('expired');
    expect((await user.get('/api/v1/tunnels?state=closed')).body.items).toHaveLength(2);
  });

  it('takes tunnels of a lost server offline, and keeps their ports', async () => {
    const lost = newServer('lost', { min: 12_200, max: 12_209 });
    await lost.register();
    const user = await newUser();
    const { id, token, port } = (await open(user, { port: 12_205 })).body;
    const session = (await lost.authorize(token, port)).body;
    await database.query(`UPDATE servers SET lease_until = now() WHERE id = 'lost'`);
    await until(
      async () => (await user.get(`/api/v1/tunnels/${id}`)).body.state === 'offline',
      'the tunnel is offline',
    );
    expect((await open(await newUser(), { port: 12_205 })).status).not.toBe(201);
    await lost.heartbeat([session]);
    expect((await user.get(`/api/v1/tunnels/${id}`)).body).toMatchObject({ state: 'active', port: 12_205 });
    await closeAll(user);
  });
});
