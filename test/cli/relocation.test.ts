/** A bore-server is killed: borectl follows its tunnel to another, with real bytes; a stock client's tunnel waits for its server. */
import { afterAll, beforeAll, expect, it } from 'vitest';

import { type BoreServerProcess, startBoreServer } from '../harness/bore-server.js';
import { until } from '../harness/until.js';
import { hello } from '../harness/wire-client.js';
import type { OpenTunnel } from './borectl.js';
import { type LocalService, readAll, startService, visit } from './local-service.js';
import { Platform } from './platform.js';

const OTHER = '127.0.7.11';

let platform: Platform;
let other: BoreServerProcess;
let service: LocalService;

beforeAll(async () => {
  platform = await Platform.start('127.0.7.10', {
    HOUSEKEEPING_INTERVAL_MS: '200',
    SERVER_LEASE_SECONDS: '3',
    SERVER_LOST_GRACE: '1',
  });
  service = await startService((socket) => void socket.pipe(socket));
});

afterAll(async () => {
  service?.close();
  await other?.stop();
  await platform?.stop();
});

/** Whether what a visitor sends comes back whole. */
async function echoes({ host, port }: Pick<OpenTunnel, 'host' | 'port'>): Promise<boolean> {
  const sent = 'x'.repeat(100_000);
  const visitor = await visit({ host, port }).catch(() => undefined);
  visitor?.end(sent);
  return visitor !== undefined && (await readAll(visitor).catch(() => '')) === sent;
}

it('moves to where borectl follows, and is there when the old server returns', { timeout: 120_000 }, async () => {
  const person = await platform.newUser();
  const api = await platform.apiOf(person);
  const client = await person.open(service.port, '--name', 'mine');
  expect(await echoes(client)).toBe(true);
  const { body: stock } = await api.post('/api/v1/tunnels', { name: 'stock' });
  const carrier = await hello(platform.server, stock.token, stock.port);
  other = await startBoreServer({
    backend: platform.backend,
    serverId: 's2',
    address: OTHER,
    ports: { min: 14_000, max: 14_099 },
  });
  const { port } = client;

  await platform.server.kill9();
  await client.waitFor(`Public address: ${OTHER}:${port}\n`);
  await until(() => echoes({ host: OTHER, port }), 'it carries bytes at its new address');
  const view = async (id: string) => (await api.get(`/api/v1/tunnels/${id}`)).body;
  expect(await view(stock.id)).toMatchObject({ state: 'offline', serverId: 's1', port: stock.port, relocate: false });
  const listed = JSON.parse((await person.run(['ls', '--json'])).stdout).find(
    ({ name }: { name: string }) => name === 'mine',
  );
  expect(listed).toMatchObject({ host: OTHER, port, state: 'active' });

  await platform.restartServer();
  const again = await hello(platform.server, stock.token, stock.port);
  await until(async () => (await view(stock.id)).state === 'active', 'the stock client is back on its port');
  // some heartbeats of the old server
  const beat = async () =>
    (await platform.database.query(`SELECT heartbeat_sequence AS n FROM servers WHERE id = 's1'`))[0]?.['n'];
  const seen = Number(await beat());
  await until(async () => Number(await beat()) > seen + 3, 'heartbeats');
  expect(await view(listed.id)).toMatchObject({ state: 'active', serverId: 's2', port });
  expect(await echoes({ host: OTHER, port })).toBe(true);
  expect(await echoes({ host: platform.address, port })).toBe(false);
  expect(await platform.database.query(`SELECT id, open_tunnels FROM servers ORDER BY id`)).toEqual([
    { id: 's1', open_tunnels: 1 },
    { id: 's2', open_tunnels: 1 },
  ]);
  again.client.socket.destroy();
  carrier.client.socket.destroy();
  await client.stop();
  expect((await view(listed.id)).state).toBe('closed');
});
