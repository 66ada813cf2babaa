import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { SECRETS } from '../harness/backend.js';
import { comingAgain } from '../harness/coming-again.js';
import { ControlPlane } from './control-plane.js';
import type { PlaneClient } from './plane-client.js';

let plane: ControlPlane;
let server: PlaneClient;
let user: Api;

const DEFAULTS = { maxConnections: null, bandwidthMbps: 50, allowCidrs: [], denyCidrs: [], proxyProtocol: null };
const GIVEN = {
  maxConnections: 10,
  bandwidthMbps: 20,
  allowCidrs: ['192.0.2.0/24', '2001:db8::/32'],
  denyCidrs: ['192.0.2.7/32'],
  proxyProtocol: 'v2',
};

beforeAll(async () => {
  plane = await ControlPlane.start({ backends: 2, env: { MAX_BANDWIDTH_PER_TUNNEL: '50' } });
  server = await plane.newServer('s1', 10_000);
  user = await plane.newUser();
});

afterAll(() => plane?.stop());

const open = async (body: object = {}) => (await user.post('/api/v1/tunnels', body)).body;
const change = (id: string, body: object, as = user) => as.patch(`/api/v1/tunnels/${id}`, body);

describe('the settings of a tunnel', () => {
  it('are the defaults when none are given: the system’s bandwidth, and everybody may visit', async () => {
    const { id, token, port } = await open();
    expect((await user.get(`/api/v1/tunnels/${id}`)).body).toMatchObject(DEFAULTS);
    const { body } = await server.authorize(token, port);
    expect(body).toMatchObject({ settings: { version: 0, ...DEFAULTS, expiresAt: null }, expiresAt: null });
  });

  it('are what the owner gave, in the view and in the grant', async () => {
    const opened = await open({ ...GIVEN, ttlSeconds: 3600 });
    expect(opened).toMatchObject(GIVEN);
    const { body } = await server.authorize(opened.token, opened.port);
    expect(body.settings).toEqual({ version: 0, ...GIVEN, expiresAt: opened.expiresAt });
    expect(body.expiresAt).toBe(opened.expiresAt);
  });

  it('keep networks in one spelling, once each', async () => {
    const allowCidrs = ['2001:DB8:0:0::/32', '2001:db8::/32', '10.0.0.1/8', '10.0.0.1/8', '0.0.0.0/0', '::/0'];
    expect((await open({ allowCidrs })).allowCidrs).toEqual(['2001:db8::/32', '10.0.0.1/8', '0.0.0.0/0', '::/0']);
  });

  it('keep IPv4 networks written as IPv6 as what they are: visitors’ addresses are IPv4', async () => {
    const denyCidrs = ['::ffff:192.0.2.1/128', '::ffff:10.0.0.0/104', '::FFFF:0:0/96', '::ffff:0:0/95'];
    const expected = ['192.0.2.1/32', '10.0.0.0/8', '0.0.0.0/0', '::ffff:0:0/95'];
    expect((await open({ denyCidrs })).denyCidrs).toEqual(expected);
  });

  it.each([
    ['more bandwidth than the system gives', { bandwidthMbps: 51 }, 'bandwidthMbps'],
    ['no bandwidth', { bandwidthMbps: 0 }, 'bandwidthMbps'],
    ['half a megabit', { bandwidthMbps: 0.5 }, 'bandwidthMbps'],
    ['no connections', { maxConnections: 0 }, 'maxConnections'],
    ['more connections than ports', { maxConnections: 65_536 }, 'maxConnections'],
    ['an address that is no network', { allowCidrs: ['192.0.2.1'] }, 'allowCidrs.0'],
    ['a mask that is too long', { denyCidrs: ['10.0.0.0/8', '192.0.2.0/33'] }, 'denyCidrs.1'],
    ['an IPv6 mask that is too long', { denyCidrs: ['2001:db8::/129'] }, 'denyCidrs.0'],
    ['numbers that are no address', { allowCidrs: ['300.0.2.0/24'] }, 'allowCidrs.0'],
    ['an octet with a leading zero', { allowCidrs: ['010.0.0.0/8'] }, 'allowCidrs.0'],
    ['words', { allowCidrs: ['everybody'] }, 'allowCidrs.0'],
    ['a network that breaks out of its brackets', { allowCidrs: ['::1]@evil/64'] }, 'allowCidrs.0'],
    ['too many networks', { allowCidrs: Array.from({ length: 101 }, (_, i) => `10.0.${i}.0/24`) }, 'allowCidrs'],
    ['a version that is none', { proxyProtocol: 'v3' }, 'proxyProtocol'],
    ['an unknown field', { bandwidth: 5 }, ''],
  ])('are refused with %s, when opening and when changing', async (_, body, path) => {
    const { id } = await open();
    for (const answer of [await user.post('/api/v1/tunnels', body), await change(id, body)]) {
      expect(answer).toMatchObject({ status: 400, body: { code: 'VALIDATION_FAILED' } });
      expect(answer.body.errors.map((error: { path: string }) => error.path)).toEqual([path]);
    }
    expect((await user.get(`/api/v1/tunnels/${id}`)).body).toMatchObject(DEFAULTS);
  });
});

describe('changing a tunnel', () => {
  it('reaches its bore-server before the answer, with a version that grows by one', async () => {
    const { id, token, port } = await open();
    await server.authorize(token, port);
    server.calls.length = 0;
    const changed = await change(id, GIVEN);
    expect(changed).toMatchObject({ status: 200, body: { id, ...GIVEN } });
    expect(server.calls).toMatchObject([{ path: `/tunnels/${id}/settings`, key: SECRETS.INTERNAL_API_KEY }]);
    expect(JSON.parse(server.calls[0]?.body ?? '')).toEqual({ version: 1, ...GIVEN, expiresAt: null });
    expect((await user.get(`/api/v1/tunnels/${id}`)).body).toEqual(changed.body);
    // what has not changed gets no version, and a field that is left out stays
    await change(id, { denyCidrs: GIVEN.denyCidrs, bandwidthMbps: GIVEN.bandwidthMbps });
    await change(id, { maxConnections: null });
    expect(server.settings.get(id)).toEqual({ version: 2, ...GIVEN, maxConnections: null, expiresAt: null });
    // null returns to the default
    await change(id, { bandwidthMbps: null, proxyProtocol: null, allowCidrs: [], denyCidrs: [] });
    expect(server.settings.get(id)).toEqual({ version: 3, ...DEFAULTS, expiresAt: null });
  });

  it('comes with the next heartbeat when the bore-server could not be told, and only until it knows', async () => {
    const { id, token, port } = await open();
    const session = (await server.authorize(token, port)).body;
    server.unreachable = true;
    expect((await change(id, { denyCidrs: ['198.51.100.0/24'] })).status).toBe(200);
    server.unreachable = false;
    expect(server.settings.get(id)?.version).toBe(0);

    const told = await server.beat({ sessions: [session], url: plane.url(1) });
    const settings = { version: 1, ...DEFAULTS, denyCidrs: ['198.51.100.0/24'], expiresAt: null };
    expect(told.body.update).toEqual([{ tunnelId: id, settings }]);
    expect((await server.beat({ sessions: [session] })).body.update).toEqual([]);
    expect((await server.authorize(token, port)).body.settings).toEqual(settings);
  });

  it('is not told to a session that does not carry the tunnel any more', async () => {
    const { id, token, port } = await open();
    const older = (await server.authorize(token, port)).body;
    await server.authorize(token, port);
    server.unreachable = true;
    await change(id, { maxConnections: 3 });
    server.unreachable = false;
    const { body } = await server.beat({ sessions: [older] });
    expect(body).toMatchObject({ update: [], close: [{ sessionId: older.sessionId, reason: 'superseded' }] });
  });

  it('gives 40 concurrent changes over 2 backends 40 versions, and the bore-server the last of them', async () => {
    const { id, token, port } = await open();
    const session = (await server.authorize(token, port)).body;
    const users = [user, user.at(plane.url(1))];
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_, i) => comingAgain(() => change(id, { maxConnections: i + 1 }, users[i % 2]))),
    );
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 40 }, () => 200));
    expect(plane.backends.map((backend) => backend.output()).join('')).not.toContain('deadlock');
    const [row] = await plane.database.query('SELECT settings_version, max_connections FROM tunnels WHERE id = $1', [
      id,
    ]);
    expect(row?.['settings_version']).toBe(40);
    await server.beat({ sessions: [session] });
    expect(server.settings.get(id)).toMatchObject({ version: 40, maxConnections: row?.['max_connections'] });
  });

  it('renames, and not to a name that another open tunnel has', async () => {
    const [one, two] = [await open({ name: 'one' }), await open({ name: 'two' })];
    server.calls.length = 0;
    expect((await change(one.id, { name: 'uno' })).body).toMatchObject({ name: 'uno' });
    expect(await change(two.id, { name: 'uno' })).toMatchObject({ status: 409, body: { code: 'NAME_TAKEN' } });
    expect((await change(one.id, { name: null })).body.name).toBeNull();
    expect((await change(two.id, { name: 'uno' })).status).toBe(200);
    // a name is no business of the bore-server
    expect(server.calls).toEqual([]);
    expect((await change(one.id, {})).status).toBe(200);
    const [row] = await plane.database.query('SELECT settings_version FROM tunnels WHERE id = $1', [one.id]);
    expect(row?.['settings_version']).toBe(0);
  });

  it('gives one of 20 contenders a name', async () => {
    const ids = await Promise.all(Array.from({ length: 20 }, async () => (await open()).id));
    const answers = await Promise.all(ids.map((id) => change(id, { name: 'wanted' })));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(answers.filter(({ body }) => body.code === 'NAME_TAKEN')).toHaveLength(19);
  });

  it('sets and clears the time to live, counted from now', async () => {
    const { id, token, port } = await open({ ttlSeconds: 60 });
    const { expiresAt } = (await change(id, { ttlSeconds: 3600 })).body;
    expect(Date.parse(expiresAt) - Date.now()).toBeGreaterThan(3_500_000);
    // a change of a setting: a bore-server that keeps a grant hears of it
    expect(server.settings.get(id)).toMatchObject({ version: 1, expiresAt });
    expect((await server.authorize(token, port)).body.expiresAt).toBe(expiresAt);
    expect((await change(id, { ttlSeconds: null })).body.expiresAt).toBeNull();
    expect((await server.authorize(token, port)).body.expiresAt).toBeNull();
    expect((await change(id, { ttlSeconds: 0 })).status).toBe(400);
  });

  it('is refused for a closed tunnel, one whose time has ended, and one of somebody else', async () => {
    const { id } = await open();
    const other = await plane.newUser();
    expect(await change(id, { maxConnections: 1 }, other)).toMatchObject({ status: 404, body: { code: 'NOT_FOUND' } });
    await plane.database.query(`UPDATE tunnels SET expires_at = now() WHERE id = $1`, [id]);
    expect(await change(id, { ttlSeconds: 60 })).toMatchObject({ status: 409, body: { code: 'TUNNEL_CLOSED' } });
    await user.delete(`/api/v1/tunnels/${id}`);
    server.calls.length = 0;
    expect(await change(id, { maxConnections: 1 })).toMatchObject({ status: 409, body: { code: 'TUNNEL_CLOSED' } });
    // that it is closed may be told meanwhile
    expect(server.calls.filter(({ path }) => path.endsWith('/settings'))).toEqual([]);
    expect((await user.get(`/api/v1/tunnels/${id}`)).body.maxConnections).toBeNull();
  });
});

describe('the operator’s limit of bandwidth', () => {
  it('holds for tunnels that were opened before it was lowered', async () => {
    const { id, token, port } = await open({ bandwidthMbps: 40 });
    await plane.database.query(`UPDATE tunnels SET bandwidth_mbps = 500, settings_version = 1 WHERE id = $1`, [id]);
    expect((await user.get(`/api/v1/tunnels/${id}`)).body.bandwidthMbps).toBe(50);
    const session = (await server.authorize(token, port)).body;
    expect(session.settings.bandwidthMbps).toBe(50);
    server.settings.delete(id);
    expect((await server.beat({ sessions: [session] })).body.update).toMatchObject([
      { settings: { bandwidthMbps: 50 } },
    ]);
  });
});
