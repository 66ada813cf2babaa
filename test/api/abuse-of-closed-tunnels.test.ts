/** An owner who closes a tunnel before an administrator comes for it does not get away with its port. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { ControlPlane } from './control-plane.js';
import type { PlaneClient } from './plane-client.js';

const PORT = 21_600;

let plane: ControlPlane;
let server: PlaneClient;
let admin: Api;
let owner: Api;

beforeAll(async () => {
  plane = await ControlPlane.start({ env: { ABUSE_QUARANTINE_HOURS: '5' } });
  admin = await plane.admin();
  server = await plane.newServer('s1', PORT, 200);
});

afterAll(() => plane?.stop());

beforeEach(async () => {
  await plane.database.query(`UPDATE tunnels SET state = 'closed', closed_at = now() WHERE state <> 'closed'`);
  await plane.database.query('DELETE FROM port_quarantine');
  owner = await plane.newUser();
});

const open = async (user: Api, port = PORT) => (await user.post('/api/v1/tunnels', { port })).body;
const suspend = (id: string, body: object = {}) =>
  admin.post(`/api/v1/admin/tunnels/${id}/suspend`, { reason: 'phishing', ...body });
const quarantine = async () => (await admin.get('/api/v1/admin/quarantine?limit=100')).body.items;
const portsInQuarantine = async () => (await quarantine()).map(({ port }: { port: number }) => port);
const idOf = async (user: Api): Promise<string> => (await user.get('/api/v1/auth/me')).body.id;

/** A tunnel that its owner has closed, `hours` ago; with or without a client before that. */
async function closed(hours = 0, port = PORT, used = true): Promise<string> {
  const { id, token } = await open(owner, port);
  if (used) expect((await server.authorize(token, port)).status).toBe(200);
  await owner.delete(`/api/v1/tunnels/${id}`);
  await plane.database.query(`UPDATE tunnels SET closed_at = now() - make_interval(hours => $2) WHERE id = $1`, [
    id,
    hours,
  ]);
  return id;
}

describe('suspending a tunnel that its owner has closed', () => {
  it('keeps its port from everybody all the same, and is in the audit log', async () => {
    const id = await closed(4);
    expect(await suspend(id)).toMatchObject({ status: 200, body: { state: 'closed', closeReason: 'deleted' } });
    expect(await quarantine()).toMatchObject([{ port: PORT, tunnelId: id, userId: await idOf(owner) }]);
    const hours = (Date.parse((await quarantine())[0].until) - Date.now()) / 3_600_000;
    expect(hours).toBeGreaterThan(4.9);
    expect(await open(await plane.newUser())).toMatchObject({ code: 'PORT_TAKEN' });
    expect(
      await plane.database.query(`SELECT details FROM audit_log WHERE target_id = $1 AND action = 'tunnel.suspended'`, [
        id,
      ]),
    ).toMatchObject([{ details: { reason: 'phishing', quarantineHours: 5, closedTunnels: 0 } }]);
    expect((await owner.get('/api/v1/tunnels')).status).toBe(200);
  });

  it('suspends the owner too if asked to', async () => {
    const id = await closed();
    const other = await open(owner, PORT + 1);
    expect((await suspend(id, { suspendUser: true })).status).toBe(200);
    expect((await owner.get('/api/v1/tunnels')).status).toBe(401);
    expect(await portsInQuarantine()).toEqual([PORT, other.port]);
  });

  it('is refused when that was longer ago than the quarantine lasts, or no quarantine is wanted', async () => {
    for (const [id, body] of [
      [await closed(6), {}],
      [await closed(2), { quarantineHours: 1, suspendUser: true }],
      [await closed(), { quarantineHours: 0 }],
    ] as const) {
      const refused = await suspend(id, body);
      expect(refused).toMatchObject({ status: 409, body: { code: 'TUNNEL_CLOSED' } });
      expect(refused.body.detail).toMatch(/closed more than \d+ hours ago/);
    }
    expect(await portsInQuarantine()).toEqual([]);
    expect((await owner.get('/api/v1/tunnels')).status).toBe(200);
  });

  it('is refused when another tunnel has the port, and names it', async () => {
    const id = await closed();
    const holder = await open(await plane.newUser());
    for (const body of [{}, { suspendUser: true }]) {
      const refused = await suspend(id, body);
      expect(refused).toMatchObject({ status: 409, body: { code: 'TUNNEL_CLOSED' } });
      expect(refused.body.detail).toContain(holder.id);
    }
    expect(await portsInQuarantine()).toEqual([]);
    expect((await owner.get('/api/v1/tunnels')).status).toBe(200);
  });

  it('is not fooled by an owner who takes the port again', async () => {
    const id = await closed();
    const again = await open(owner);
    expect((await suspend(id)).body.detail).toContain(again.id);
    expect((await suspend(id, { suspendUser: true })).status).toBe(200);
    expect((await admin.get(`/api/v1/admin/tunnels/${again.id}`)).body).toMatchObject({ closeReason: 'suspended' });
    expect(await quarantine()).toMatchObject([{ port: PORT, tunnelId: id }]);
  });
});

describe('suspending a user', () => {
  const suspendUser = async (quarantineHours: number) =>
    admin.patch(`/api/v1/admin/users/${await idOf(owner)}`, { suspended: { reason: 'spam', quarantineHours } });

  it('keeps the ports, too, that were used and given back within the time of the quarantine', async () => {
    await closed(1, PORT);
    await closed(3, PORT + 1);
    await closed(0, PORT + 2, false);
    await closed(0, PORT + 3);
    await closed(0, PORT + 4);
    await open(await plane.newUser(), PORT + 4);
    await open(owner, PORT + 5);
    await plane.database.query(
      `INSERT INTO port_quarantine (server_id, port, until, reason) VALUES ('s1', $1, now() + interval '1 hour', 'shorter')`,
      [PORT],
    );
    expect((await suspendUser(2)).status).toBe(200);
    expect(await portsInQuarantine()).toEqual([PORT, PORT + 3, PORT + 5]);
    for (const { until } of await quarantine()) expect(Date.parse(until) - Date.now()).toBeGreaterThan(1.9 * 3_600_000);
  });

  it('keeps none without a quarantine', async () => {
    await closed();
    expect((await suspendUser(0)).status).toBe(200);
    expect(await portsInQuarantine()).toEqual([]);
  });

  it('keeps the 100 last of them at most, and those open now', async () => {
    const { token } = await open(owner, PORT + 150);
    expect((await server.authorize(token, PORT + 150)).status).toBe(200);
    await closed();
    await plane.database.query(
      `INSERT INTO tunnels (id, user_id, server_id, port, state, sealed_key, connected_at, closed_at)
       SELECT gen_random_uuid(), $1, 's1', $2 + i, 'closed', '', now(), now() - make_interval(mins => i) FROM generate_series(1, 120) i`,
      [await idOf(owner), PORT],
    );
    expect((await suspendUser(5)).status).toBe(200);
    const kept = await plane.database.query('SELECT port FROM port_quarantine ORDER BY port');
    expect(kept.map(({ port }) => port)).toEqual([...Array.from({ length: 100 }, (_, i) => PORT + i), PORT + 150]);
  });
});
