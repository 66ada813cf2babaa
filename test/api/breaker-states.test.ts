import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { AdminEndpoint } from '../harness/admin-endpoint.js';
import type { Answer, Api } from '../harness/api.js';
import { until } from '../harness/until.js';
import { ControlPlane } from './control-plane.js';
import type { PlaneClient } from './plane-client.js';

/** The exchange is once a second, and the machine may be busy. */
const SOON_MS = 5_000;
/** A breaker is open for 5 s, then its server is tried. */
const PROBED_MS = 12_000;
const PROBE_PATH = '/tunnels/00000000-0000-0000-0000-000000000000/fence';

const endpoint = new AdminEndpoint();
/** Where the server is after a move. */
const elsewhere = new AdminEndpoint();
let server: PlaneClient;
let plane: ControlPlane;
let admin: Api;
let user: Api;
let tunnelId: string;

beforeAll(async () => {
  plane = await ControlPlane.start();
  admin = await plane.admin();
  user = await plane.newUser();
  server = await plane.newServer('s1', 20_800);
  await server.register({ adminUrl: await endpoint.listen() });
  tunnelId = (await user.post('/api/v1/tunnels', {})).body.id;
});

afterAll(async () => {
  await plane?.stop();
  endpoint.close();
  elsewhere.close();
});

beforeEach(async () => {
  endpoint.mode = 'answers';
  const isClosed = async () => [undefined, 'closed'].includes(await state());
  // not one that is closed: the reset would come with the next exchange, in the middle of the test
  if (!(await isClosed())) await admin.post('/api/v1/admin/circuit-breaker/reset', {});
  await until(isClosed, 'the breaker is closed', SOON_MS);
  endpoint.paths = [];
});

let connections = 0;
/** A request that has the backend call the server. */
const order = (): Promise<Answer> =>
  user.patch(`/api/v1/tunnels/${tunnelId}`, { maxConnections: (connections = (connections % 500) + 1) });
const inARow = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) expect((await order()).status).toBe(200);
};
const atOnce = async (count: number): Promise<void> => {
  const answers = await Promise.all(Array.from({ length: count }, order));
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
};

interface View {
  serverId: string;
  state: string;
  stats: { failures: number };
}
const view = async (id = 's1'): Promise<View | undefined> =>
  (await admin.get('/api/v1/admin/circuit-breaker/stats')).body.breakers.find(({ serverId }: View) => serverId === id);
const state = async (id?: string) => (await view(id))?.state;
const isState = (wanted: string, ms = SOON_MS) => until(async () => (await state()) === wanted, `it is ${wanted}`, ms);

describe('a circuit breaker', () => {
  it('opens with the third failure in a row, however many calls went well before, and not with fewer', async () => {
    await inARow(20);
    endpoint.mode = 'fails';
    await inARow(2);
    endpoint.mode = 'answers';
    await inARow(1);
    endpoint.mode = 'fails';
    await inARow(2);
    endpoint.mode = 'answers';
    await inARow(1);
    expect(endpoint.arrived).toBe(26);

    endpoint.mode = 'fails';
    await inARow(6);
    // the last three were not tried
    expect(endpoint.arrived).toBe(29);
    await isState('open');
  });

  it('tries the server with exactly one call when half-open, and opens again when that one hangs', async () => {
    endpoint.mode = 'hangs';
    await atOnce(3);
    expect(endpoint.arrived).toBe(3);
    // what was given up holds no connection
    await until(() => endpoint.waiting === 0, 'the calls are given up', SOON_MS);

    await until(() => endpoint.waiting === 1, 'the probe arrives', PROBED_MS);
    expect(endpoint.paths.at(-1)).toBe(PROBE_PATH);
    endpoint.waitingMax = 0;
    await atOnce(30);
    await until(() => endpoint.waiting === 0, 'the probe is given up', SOON_MS);
    await isState('open');
    await inARow(3);
    // a busy machine may have come to the next probe
    expect(endpoint.paths.filter((path) => path !== PROBE_PATH)).toHaveLength(3);
    expect(endpoint.waitingMax).toBeLessThan(2);
  });

  it('closes with a good probe, for which no order has to come, and begins anew', async () => {
    endpoint.mode = 'fails';
    await inARow(3);
    // well again, but for now it thinks
    endpoint.mode = 'hangs';
    await until(() => endpoint.waiting === 1, 'the probe arrives', PROBED_MS);
    // no order reaches the server before a probe is answered, nor is a tunnel placed there
    await inARow(1);
    expect((await user.post('/api/v1/tunnels', {})).body.code).toBe('NO_CAPACITY');
    endpoint.mode = 'answers';
    endpoint.release();
    await isState('closed', PROBED_MS);
    expect(new Set(endpoint.paths.slice(3))).toEqual(new Set([PROBE_PATH]));
    endpoint.paths = [];
    await inARow(1);

    endpoint.mode = 'fails';
    await inARow(2);
    endpoint.mode = 'answers';
    await inARow(1);
    // nor do the calls that were rejected keep it closed
    endpoint.mode = 'fails';
    await inARow(6);
    expect(endpoint.arrived).toBe(1 + 2 + 1 + 3);
    await isState('open');
  });

  it('goes with its server', async () => {
    await (await plane.newServer('gone', 20_900)).register({ location: 'x' });
    const { body } = await user.post('/api/v1/tunnels', { location: 'x' });
    expect(body.serverId).toBe('gone');
    await user.delete(`/api/v1/tunnels/${body.id}`);
    await until(() => state('gone'), 'it is shown', SOON_MS);
    await plane.database.query(`UPDATE servers SET lease_until = now() - interval '1 s' WHERE id = 'gone'`);
    expect((await admin.delete('/api/v1/admin/servers/gone')).status).toBe(204);
    await until(async () => (await state('gone')) === undefined, 'it is forgotten', SOON_MS);
    expect(await state()).toBeDefined();
  });

  it('tries the server where it has registered since, and not at all while it is disabled', async () => {
    endpoint.mode = 'fails';
    await inARow(3);
    await admin.patch('/api/v1/admin/servers/s1', { disabled: true });
    const failures = async () => (await view())?.stats.failures ?? 0;
    // orders know the address, and are for a server that answers
    const triedMeanwhile = async () => (await order(), (await failures()) > 3);
    await until(triedMeanwhile, 'the breaker is half-open, and nobody is tried', PROBED_MS);
    expect(endpoint.arrived).toBe(3);

    const adminUrl = await elsewhere.listen();
    await admin.patch('/api/v1/admin/servers/s1', { disabled: false });
    await server.register({ adminUrl });
    await isState('closed', PROBED_MS);
    expect(elsewhere.paths).toEqual([PROBE_PATH]);
    expect(endpoint.arrived).toBe(3);
  });
});
