import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { ControlPlane } from './control-plane.js';
import type { PlaneClient } from './plane-client.js';
import { inTransaction, somebodyWaits } from './transaction.js';

const PORTS = 200;

let plane: ControlPlane;
let admin: Api;
let drained: PlaneClient;
let other: PlaneClient;

beforeAll(async () => {
  plane = await ControlPlane.start({ backends: 2, env: { PLAN_FREE_TUNNELS: '1000' } });
  admin = await plane.admin();
  drained = await plane.newServer('drained', 10_000, PORTS);
  other = await plane.newServer('other', 11_000, PORTS);
  // both well below their limits: only the drain keeps tunnels away
  for (const server of [drained, other]) await server.register({ maxTunnels: PORTS });
});

afterAll(() => plane?.stop());

const drain = (id = 'drained') => admin.post(`/api/v1/admin/servers/${id}/drain`, undefined);
const undrain = (id = 'drained') => admin.post(`/api/v1/admin/servers/${id}/undrain`, undefined);
const stateOf = async () => (await admin.get('/api/v1/admin/servers/drained')).body.state;

async function openMany(user: Api, count: number): Promise<string[]> {
  const answers = await Promise.all(
    Array.from({ length: count }, (_, i) => user.at(plane.url(i)).post('/api/v1/tunnels', {})),
  );
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 201));
  return answers.map(({ body }) => body.serverId);
}

describe('a server that an administrator drains', () => {
  it('gets no tunnel from the moment of the answer, keeps those it has, and is told with its next heartbeat', async () => {
    const user = await plane.newUser();
    const { id, token } = (await user.post('/api/v1/tunnels', { port: 10_007 })).body;
    const session = (await drained.authorize(token, 10_007)).body;
    expect(await drain()).toMatchObject({
      status: 200,
      body: { id: 'drained', state: 'draining', drainRequested: true },
    });

    // its free slots are nobody's
    expect((await user.get('/api/v1/capacity')).body.free).toBeLessThanOrEqual(PORTS);
    expect(new Set(await openMany(user, 40))).toEqual(new Set(['other']));
    expect(await user.post('/api/v1/tunnels', { port: 10_008 })).toMatchObject({
      status: 503,
      body: { code: 'NO_CAPACITY' },
    });
    expect((await drained.beat({ sessions: [session] })).body).toMatchObject({ drain: true, close: [] });
    // one that arrives late must not say that the drain is over
    expect((await drained.beat({ sessions: [session], sequence: 1 })).body.drain).toBe(true);
    expect((await user.get(`/api/v1/tunnels/${id}`)).body.state).toBe('active');
    expect((await drained.authorize(token, 10_007)).status).toBe(200);
    // a restart does not end it
    await drained.register();
    expect(await stateOf()).toBe('draining');
    expect(new Set(await openMany(user, 10))).toEqual(new Set(['other']));
  });

  it('takes tunnels again when it is undrained and says itself that it does', async () => {
    expect((await undrain()).body).toMatchObject({ drainRequested: false, state: 'draining' });
    // it still drains, by the order before or by a signal of its own
    expect((await drained.beat({ draining: true })).body.drain).toBe(false);
    expect(await stateOf()).toBe('draining');
    await drained.beat();
    expect(await stateOf()).toBe('online');
    expect(await openMany(await plane.newUser(), 10)).toContain('drained');
  });

  it('gets no tunnel of an admission that had chosen it before the drain came', async () => {
    await drained.beat();
    expect(await stateOf()).toBe('online');
    const user = await plane.newUser();
    const [free] = await plane.database.query(
      `SELECT p AS port FROM generate_series(10000, 10199) p
       WHERE NOT EXISTS (SELECT FROM tunnels WHERE server_id = 'drained' AND port = p AND state <> 'closed') LIMIT 1`,
    );
    await inTransaction(plane.database, async (client) => {
      // what a drain does, held open until the admission waits for it
      await client.query(`UPDATE servers SET state = 'draining', drain_requested = true WHERE id = 'drained'`);
      const opening = user.post('/api/v1/tunnels', { port: free?.['port'] });
      await somebodyWaits(plane.database);
      await client.query('COMMIT');
      expect(await opening).toMatchObject({ status: 503, body: { code: 'NO_CAPACITY' } });
    });
    await undrain();
  });

  it('gets no tunnel although many are being opened over 2 backends when the drain comes', async () => {
    const user = await plane.newUser();
    for (let round = 0; round < 5; round++) {
      await drained.beat();
      const opening = openMany(user, 15);
      await drain();
      const count = async () =>
        (await plane.database.query(`SELECT open_tunnels FROM servers WHERE id = 'drained'`))[0]?.['open_tunnels'];
      const atAnswer = await count();
      await opening;
      expect(await count()).toBe(atAnswer);
      await undrain();
    }
  });

  it('is one that is there, and drained by administrators only', async () => {
    expect(await drain('nowhere')).toMatchObject({ status: 404, body: { code: 'NOT_FOUND' } });
    expect((await undrain('nowhere')).status).toBe(404);
    const user = await plane.newUser();
    for (const what of ['drain', 'undrain']) {
      const answer = await user.post(`/api/v1/admin/servers/drained/${what}`, undefined);
      expect(answer).toMatchObject({ status: 403, body: { code: 'FORBIDDEN' } });
    }
  });
});

describe('a server that drains by itself', () => {
  it('gets no tunnel from the heartbeat that says so', async () => {
    await drained.beat();
    expect(await stateOf()).toBe('online');
    await drained.beat({ draining: true });
    expect(new Set(await openMany(await plane.newUser(), 20))).toEqual(new Set(['other']));
  });
});
