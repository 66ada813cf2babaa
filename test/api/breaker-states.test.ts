import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { AdminEndpoint } from '../harness/admin-endpoint.js';
import type { Answer, Api } from '../harness/api.js';
import { until } from '../harness/until.js';
import { ControlPlane } from './control-plane.js';

/** The exchange is once a second, and the machine may be busy. */
const SOON_MS = 5_000;
/** A breaker is open for 5 s, and others hear of it with the next exchange. */
const HALF_OPEN_MS = 12_000;

const endpoint = new AdminEndpoint();
let plane: ControlPlane;
let admin: Api;
let user: Api;
let tunnelId: string;

beforeAll(async () => {
  plane = await ControlPlane.start();
  admin = await plane.admin();
  user = await plane.newUser();
  const adminUrl = await endpoint.listen();
  await (await plane.newServer('s1', 20_800)).register({ adminUrl });
  tunnelId = (await user.post('/api/v1/tunnels', {})).body.id;
});

afterAll(async () => {
  await plane?.stop();
  endpoint.close();
});

beforeEach(async () => {
  endpoint.mode = 'answers';
  await admin.post('/api/v1/admin/circuit-breaker/reset', {});
  await until(async () => [undefined, 'closed'].includes(await state()), 'the breaker is closed', SOON_MS);
  endpoint.arrived = 0;
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

const views = async (): Promise<{ serverId: string; state: string }[]> =>
  (await admin.get('/api/v1/admin/circuit-breaker/stats')).body.breakers;
const state = async (id = 's1'): Promise<string | undefined> =>
  (await views()).find(({ serverId }) => serverId === id)?.state;
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

  it('lets exactly one call through when half-open, and opens again when that one hangs', async () => {
    endpoint.mode = 'hangs';
    await atOnce(3);
    expect(endpoint.arrived).toBe(3);
    // what was given up holds no connection
    await until(() => endpoint.waiting === 0, 'the calls are given up', SOON_MS);
    await isState('half-open', HALF_OPEN_MS);

    await atOnce(30);
    await until(() => endpoint.arrived > 3, 'the probe arrives');
    await isState('open');
    await inARow(3);
    expect(endpoint.arrived).toBe(4);
  });

  it('closes with a good probe, which no request waits for, and begins anew', async () => {
    endpoint.mode = 'fails';
    await inARow(3);
    await isState('half-open', HALF_OPEN_MS);
    // well again, but for now it thinks
    endpoint.mode = 'hangs';
    await inARow(1);
    await until(() => endpoint.waiting === 1, 'the probe arrives');
    await inARow(2);
    expect(endpoint.waiting).toBe(1);
    endpoint.mode = 'answers';
    endpoint.release();
    await isState('closed');
    expect(endpoint.arrived).toBe(4);
    await inARow(1);

    endpoint.mode = 'fails';
    await inARow(2);
    endpoint.mode = 'answers';
    await inARow(1);
    // nor do the calls that were rejected keep it closed
    endpoint.mode = 'fails';
    await inARow(6);
    expect(endpoint.arrived).toBe(4 + 1 + 2 + 1 + 3);
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
});
