/** Many tunnels that end at once: their bore-servers are told in groups, and not for longer than they answer. */
import { once } from 'node:events';
import http from 'node:http';

import { afterAll, beforeAll, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { until } from '../harness/until.js';
import { ControlPlane } from './control-plane.js';

/** As in src/servers/close-orders.ts. */
const AT_ONCE = 20;
const TUNNELS = 45;

let plane: ControlPlane;
let admin: Api;

beforeAll(async () => {
  plane = await ControlPlane.start();
  admin = await plane.admin();
});

afterAll(() => plane?.stop());

async function openMany(user: Api, count: number): Promise<void> {
  for (let i = 0; i < count; i++) expect((await user.post('/api/v1/tunnels', {})).status).toBe(201);
}

const suspend = async (user: Api) => {
  const { id } = (await user.get('/api/v1/auth/me')).body;
  return admin.patch(`/api/v1/admin/users/${id}`, { suspended: { reason: 'spam' } });
};

it('a suspended user’s many tunnels are ended on their server by a few orders at once', async () => {
  const held: http.ServerResponse[] = [];
  let told = 0;
  let heldMax = 0;
  const surface = http.createServer((_, response) => {
    told += 1;
    held.push(response);
    heldMax = Math.max(heldMax, held.length);
  });
  await once(surface.listen(0, '127.0.0.1'), 'listening');
  try {
    const address = surface.address();
    const adminUrl = `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`;
    const server = await plane.newServer('holds', 22_000);
    await server.register({ adminUrl });
    const user = await plane.newUser();
    await openMany(user, TUNNELS);
    const suspended = suspend(user);
    for (let expected = AT_ONCE; told < TUNNELS; expected = Math.min(TUNNELS, expected + AT_ONCE)) {
      await until(() => told >= expected, `${expected} orders arrive`);
      // what was sent together with these has arrived when this is answered
      await admin.get('/api/v1/auth/me');
      for (const response of held.splice(0))
        response.setHeader('content-type', 'application/json').end('{"closed":true}');
    }
    expect(await suspended).toMatchObject({ status: 200, body: { openTunnels: 0 } });
    expect(told).toBe(TUNNELS);
    expect(heldMax).toBe(AT_ONCE);
  } finally {
    surface.close();
    surface.closeAllConnections();
    await plane.database.query(`UPDATE servers SET state = 'disabled' WHERE id = 'holds'`);
  }
});

it('a server that cannot be told is left to its heartbeat, and keeps no other from being told', async () => {
  const [well, away] = [await plane.newServer('well', 22_100), await plane.newServer('away', 22_200)];
  const user = await plane.newUser();
  await openMany(user, 2 * TUNNELS);
  const ids = async (serverId: string) =>
    (await user.get(`/api/v1/tunnels?limit=100&serverId=${serverId}`)).body.items.map(({ id }: { id: string }) => id);
  const paths = (await ids('well')).map((id: string) => `/tunnels/${id}/close`);
  expect((await ids('away')).length).toBeGreaterThan(AT_ONCE);
  away.unreachable = true;
  expect((await suspend(user)).status).toBe(200);
  expect(well.calls.map(({ path }) => path).toSorted()).toEqual(paths.toSorted());
  expect(away.calls.length).toBeGreaterThan(0);
  expect(away.calls.length).toBeLessThanOrEqual(AT_ONCE);
});
