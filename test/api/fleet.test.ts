import { afterAll, beforeAll, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { ControlPlane } from './control-plane.js';

let plane: ControlPlane;
let admin: Api;
let user: Api;

beforeAll(async () => {
  plane = await ControlPlane.start({ env: { RESERVED_CAPACITY_PERCENT: '10' } });
  admin = await plane.admin();
  user = await plane.newUser();
  const one = await plane.newServer('one', 20_800, 10);
  await one.register({ location: 'eu', maxTunnels: 10, maxBandwidthMbps: 100 });
  await (await plane.newServer('two', 20_810, 10)).register({ location: 'eu', maxTunnels: 10, maxBandwidthMbps: 100 });
  await (await plane.newServer('away', 20_820, 10)).register({ location: 'us', maxTunnels: 10 });
  await (await plane.newServer('gone', 20_830, 10)).register({ location: 'us' });
  const { body: tunnel } = await user.post('/api/v1/tunnels', { port: 20_805 });
  await one.authorize(tunnel.token, tunnel.port);
  await user.post('/api/v1/tunnels', { port: 20_825 });
  await plane.database.query(`UPDATE servers SET connections = 7, bandwidth_mbps = 50 WHERE id = 'one'`);
  await plane.database.query(`UPDATE servers SET lease_until = now() WHERE id IN ('away', 'gone')`);
  expect((await admin.delete('/api/v1/admin/servers/gone')).status).toBe(204);
});

afterAll(() => plane?.stop());

it('capacity is shown by server and location, with what is reserved and what places the next tunnel', async () => {
  const { status, body } = await admin.get('/api/v1/admin/capacity');
  expect(status).toBe(200);
  // 20 slots on servers that take tunnels, and one taken elsewhere
  expect(body).toMatchObject({ total: 21, reserved: 2, open: 2, free: 17, utilizationPercent: 9.5, truncated: false });
  expect(body.locations).toEqual([{ location: 'eu', servers: 2, capacity: 20, open: 1, utilizationPercent: 5 }]);
  expect(body.servers).toMatchObject([
    { id: 'away', state: 'offline', leaseSeconds: null, openTunnels: 1, score: 0.1, reachable: true },
    { id: 'one', state: 'online', leaseSeconds: expect.any(Number), openTunnels: 1, score: 0.5 },
    { id: 'two', state: 'online', openTunnels: 0, score: 0 },
  ]);
});

it('the fleet is counted by state, and listed', async () => {
  const { body } = await admin.get('/api/v1/admin/fleet');
  expect(body).toMatchObject({
    servers: { online: 2, draining: 0, offline: 1, disabled: 0 },
    tunnels: { pending: 1, active: 1, offline: 0 },
    connections: 7,
    bandwidthMbps: 50,
    truncated: false,
  });
  expect(body.items.map(({ id }: { id: string }) => id)).toEqual(['away', 'one', 'two']);
});

it('both are for administrators', async () => {
  for (const what of ['capacity', 'fleet']) expect((await user.get(`/api/v1/admin/${what}`)).status).toBe(403);
});
