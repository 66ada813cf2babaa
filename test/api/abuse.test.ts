import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { ControlPlane } from './control-plane.js';
import { inTransaction, somebodyWaits } from './transaction.js';

/** So few ports that random choice meets every one of them. */
const PORTS = { min: 20_300, count: 8 };
const LAST = PORTS.min + PORTS.count - 1;

let plane: ControlPlane;
let admin: Api;

beforeAll(async () => {
  plane = await ControlPlane.start({ backends: 2, env: { ABUSE_QUARANTINE_HOURS: '5' } });
  admin = await plane.admin();
  await plane.newServer('s1', PORTS.min, PORTS.count);
});

afterAll(() => plane?.stop());

beforeEach(async () => {
  await plane.database.query(`UPDATE tunnels SET state = 'closed', closed_at = now() - interval '1 hour'`);
  await plane.database.query('DELETE FROM port_quarantine');
});

const open = (user: Api, body: object = {}) => user.post('/api/v1/tunnels', body);
const suspend = (id: string, body: object = {}) =>
  admin.post(`/api/v1/admin/tunnels/${id}/suspend`, { reason: 'phishing', ...body });
const quarantine = async (query = '') => (await admin.get(`/api/v1/admin/quarantine?${query}`)).body.items;
const lift = (port: number) => admin.delete(`/api/v1/admin/quarantine/s1/${port}`);

async function openAll(user: Api): Promise<number[]> {
  const ports = [];
  for (;;) {
    const { status, body } = await open(user);
    if (status !== 201) {
      expect(body.code).toBe('NO_CAPACITY');
      return ports.toSorted((a, b) => a - b);
    }
    ports.push(body.port);
  }
}

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

describe('a tunnel suspended for abuse', () => {
  it('is closed, and nobody gets its port, neither by chance nor by asking, until it is lifted', async () => {
    const user = await plane.newUser();
    const { id, port } = (await open(user, { port: PORTS.min })).body;
    const suspended = await suspend(id);
    expect(suspended).toMatchObject({ status: 200, body: { id, state: 'closed', closeReason: 'suspended' } });
    expect(suspended.text).not.toMatch(/tk_|sealed|key/i);
    expect(await quarantine()).toMatchObject([{ serverId: 's1', port, reason: 'phishing', tunnelId: id }]);
    const hours = (Date.parse((await quarantine())[0].until) - Date.now()) / 3_600_000;
    expect(hours).toBeGreaterThan(4.9);
    expect(hours).toBeLessThan(5.1);

    expect(await open(user, { port })).toMatchObject({ status: 409, body: { code: 'PORT_TAKEN' } });
    expect(await openAll(user)).toEqual(range(PORTS.min + 1, LAST));
    expect((await lift(port)).status).toBe(204);
    expect(await lift(port)).toMatchObject({ status: 404, body: { code: 'NOT_FOUND' } });
    expect(await quarantine()).toEqual([]);
    expect((await open(user)).body.port).toBe(port);

    const log = await plane.database.query(
      `SELECT action, target_type, target_id, details FROM audit_log WHERE action IN ('tunnel.suspended', 'port.released') ORDER BY id DESC LIMIT 2`,
    );
    expect(log).toMatchObject([
      { action: 'port.released', target_type: 'server', target_id: 's1', details: { port, reason: 'phishing' } },
      {
        action: 'tunnel.suspended',
        target_id: id,
        details: { reason: 'phishing', quarantineHours: 5, closedTunnels: 1 },
      },
    ]);
  });

  it('leaves its owner alone unless asked to; then all they had is closed and quarantined', async () => {
    const user = await plane.newUser();
    const one = (await open(user)).body;
    const [two, three] = [(await open(user)).body, (await open(user)).body];
    await suspend(one.id, { quarantineHours: 0 });
    expect(await quarantine()).toEqual([]);
    expect((await user.get('/api/v1/tunnels')).body.items).toHaveLength(2);

    const { body } = await suspend(two.id, { suspendUser: true, quarantineHours: 1 });
    expect(body.state).toBe('closed');
    expect((await user.get('/api/v1/tunnels')).status).toBe(401);
    expect(await admin.get(`/api/v1/admin/users/${body.userId}`)).toMatchObject({
      body: { openTunnels: 0, suspendedReason: 'phishing' },
    });
    expect((await quarantine(`userId=${body.userId}`)).map(({ port }: { port: number }) => port)).toEqual(
      [two.port, three.port].toSorted((a, b) => a - b),
    );
    const log = await plane.database.query('SELECT action FROM audit_log WHERE user_id = $1 ORDER BY id DESC LIMIT 2', [
      body.userId,
    ]);
    expect(new Set(log.map(({ action }) => action))).toEqual(new Set(['tunnel.suspended', 'user.suspended']));
  });

  it('does not suspend the administrator who says so, and closes nothing then', async () => {
    const { id } = (await open(admin)).body;
    expect(await suspend(id, { suspendUser: true })).toMatchObject({ status: 409, body: { code: 'OWN_ACCOUNT' } });
    expect((await admin.get(`/api/v1/admin/tunnels/${id}`)).body.state).toBe('pending');
    expect((await suspend(id)).status).toBe(200);
    expect(await suspend(id, { quarantineHours: 0 })).toMatchObject({ status: 409, body: { code: 'TUNNEL_CLOSED' } });
    expect((await suspend('01a210f9-0000-7000-8000-000000000000')).status).toBe(404);
  });

  it('is the business of administrators', async () => {
    const user = await plane.newUser();
    const { id } = (await open(user)).body;
    expect((await user.post(`/api/v1/admin/tunnels/${id}/suspend`, { reason: 'x' })).status).toBe(403);
    expect((await user.get('/api/v1/admin/quarantine')).status).toBe(403);
    expect((await user.delete('/api/v1/admin/quarantine/s1/20300')).status).toBe(403);
  });
});

describe('a suspended user', () => {
  it('loses the ports for a time when the administrator says so', async () => {
    const user = await plane.newUser();
    const { port } = (await open(user)).body;
    const { id } = (await user.get('/api/v1/auth/me')).body;
    await admin.patch(`/api/v1/admin/users/${id}`, { suspended: { reason: 'spam', quarantineHours: 2 } });
    expect(await quarantine('serverId=s1')).toMatchObject([{ port, userId: id, reason: 'spam' }]);
    expect(await quarantine('serverId=s2')).toEqual([]);
  });
});

describe('the quarantine', () => {
  it('is listed in pages, and ends with its time', async () => {
    await plane.database.query(
      `INSERT INTO port_quarantine (server_id, port, until, reason) SELECT 's1', p, now() + interval '1 hour', 'test' FROM generate_series($1::int, $2::int) p`,
      [PORTS.min, LAST],
    );
    const first = (await admin.get('/api/v1/admin/quarantine?limit=5')).body;
    const second = (await admin.get(`/api/v1/admin/quarantine?limit=5&cursor=${first.nextCursor}`)).body;
    expect([...first.items, ...second.items].map(({ port }) => port)).toEqual(range(PORTS.min, LAST));
    expect(second.nextCursor).toBeNull();
    const user = await plane.newUser();
    expect((await open(user)).body.code).toBe('NO_CAPACITY');
    await plane.database.query('UPDATE port_quarantine SET until = now() WHERE port = $1', [PORTS.min + 3]);
    expect(await quarantine()).toHaveLength(PORTS.count - 1);
    expect((await open(user)).body.port).toBe(PORTS.min + 3);
  });

  it('holds for an admission that had waited for the suspension', async () => {
    const user = await plane.newUser();
    const { id, port } = (await open(user)).body;
    await inTransaction(plane.database, async (client) => {
      await client.query('SELECT lock_capacity()');
      await client.query(`SELECT close_tunnels(ARRAY[$1::uuid], 'suspended', NULL, 1, 'test')`, [id]);
      const opening = open(user, { port });
      await somebodyWaits(plane.database);
      await client.query('COMMIT');
      expect(await opening).toMatchObject({ status: 409, body: { code: 'PORT_TAKEN' } });
    });
  });
});

describe('a port that was given back', () => {
  it('is handed out at random last; who asks for it has it at once', async () => {
    const [user, stranger] = [await plane.newUser(), await plane.newUser()];
    const { id, port } = (await open(user)).body;
    await user.delete(`/api/v1/tunnels/${id}`);
    const ports = [];
    for (let i = 0; i < PORTS.count; i++) ports.push((await open(stranger)).body.port);
    expect(ports.at(-1)).toBe(port);
    await plane.database.query(`UPDATE tunnels SET state = 'closed', closed_at = now() WHERE state <> 'closed'`);
    expect((await open(user, { port })).status).toBe(201);
  });
});
