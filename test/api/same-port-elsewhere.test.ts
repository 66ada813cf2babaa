/** Servers of different names may have the same public ports: who asks for one gets it where it is free. */
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { SECRETS } from '../harness/backend.js';
import { ControlPlane } from './control-plane.js';
import { PlaneClient } from './plane-client.js';
import { inTransaction, somebodyWaits } from './transaction.js';

const PORTS = { min: 21_800, max: 21_809 };
const PORT = PORTS.min;

let plane: ControlPlane;
let user: Api;
let servers: PlaneClient[];

beforeAll(async () => {
  plane = await ControlPlane.start();
  servers = ['a', 'b'].map((id) => new PlaneClient(plane.url(), SECRETS.INTERNAL_API_KEY, id, PORTS));
  for (const server of servers)
    expect((await server.register({ host: `${server.serverId}.example`, location: server.serverId })).status).toBe(200);
  user = await plane.newUser();
});

afterAll(async () => {
  for (const server of servers ?? []) server.close();
  await plane?.stop();
});

beforeEach(async () => {
  await plane.database.query(`UPDATE tunnels SET state = 'closed', closed_at = now() WHERE state <> 'closed'`);
  await plane.database.query('DELETE FROM port_quarantine');
});

const open = () => user.post('/api/v1/tunnels', { port: PORT, location: 'a' });
const quarantine = (serverId: string) =>
  plane.database.query(
    `INSERT INTO port_quarantine (server_id, port, until, reason) VALUES ($1, $2, now() + interval '1 hour', 'test')`,
    [serverId, PORT],
  );

it('is another server’s where the port is in quarantine at the first', async () => {
  await quarantine('a');
  expect(await open()).toMatchObject({ status: 201, body: { serverId: 'b', port: PORT } });
  expect(await open()).toMatchObject({ status: 409, body: { code: 'PORT_TAKEN' } });
});

it('is another server’s where a tunnel has the port at the first', async () => {
  expect(await open()).toMatchObject({ status: 201, body: { serverId: 'a', port: PORT } });
  expect(await open()).toMatchObject({ status: 201, body: { serverId: 'b', port: PORT } });
  expect(await open()).toMatchObject({ status: 409, body: { code: 'PORT_TAKEN' } });
});

it('is nobody’s where all have it in quarantine', async () => {
  await quarantine('a');
  await quarantine('b');
  expect(await open()).toMatchObject({ status: 409, body: { code: 'PORT_TAKEN' } });
});

it('is not said to be taken when it is the name, which another tunnel gets at the same moment', async () => {
  const { id } = (await user.post('/api/v1/tunnels', {})).body;
  await inTransaction(plane.database, async (client) => {
    await client.query(`UPDATE tunnels SET name = 'mine' WHERE id = $1`, [id]);
    const opening = user.post('/api/v1/tunnels', { port: PORT + 1, name: 'mine' });
    await somebodyWaits(plane.database);
    await client.query('COMMIT');
    expect(await opening).toMatchObject({ status: 409, body: { code: 'NAME_TAKEN' } });
  });
});
