import { once } from 'node:events';
import net from 'node:net';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { until } from '../harness/until.js';
import { ControlPlane } from './control-plane.js';

/** The exchange is once a second, and the machine may be busy. */
const SOON_MS = 5_000;

let plane: ControlPlane;
let admin: Api;
let user: Api;
const held: net.Socket[] = [];
// takes connections and never answers
const hanging = net.createServer((socket) => void held.push(socket));

beforeAll(async () => {
  plane = await ControlPlane.start({ backends: 2 });
  admin = await plane.admin();
  user = await plane.newUser();
  await once(hanging.listen(0, '127.0.0.1'), 'listening');
  const address = hanging.address();
  const adminUrl = `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`;
  await (await plane.newServer('hangs', 20_600)).register({ location: 'a', adminUrl });
  await (await plane.newServer('other', 20_700)).register({ location: 'b' });
});

afterAll(async () => {
  await plane?.stop();
  for (const socket of held) socket.destroy();
  hanging.close();
});

interface View {
  serverId: string;
  backendId: string;
  state: string;
  stats: { timeouts: number };
}
const stats = async (i: number) => (await admin.at(plane.url(i)).get('/api/v1/admin/circuit-breaker/stats')).body;
const views = async (i: number, serverId = 'hangs'): Promise<View[]> =>
  (await stats(i)).breakers.filter((view: View) => view.serverId === serverId);
const reset = (i: number, body: object = {}) =>
  admin.at(plane.url(i)).post('/api/v1/admin/circuit-breaker/reset', body);

/** Has the i-th backend call the server that hangs, until it has had enough. */
async function openBreaker(i: number): Promise<void> {
  const tunnels = await Promise.all(
    Array.from({ length: 4 }, () => user.at(plane.url(i)).post('/api/v1/tunnels', { location: 'a' })),
  );
  await Promise.all(tunnels.map(({ body }) => user.at(plane.url(i)).delete(`/api/v1/tunnels/${body.id}`)));
}

const placedBy = async (i: number): Promise<string> =>
  (await user.at(plane.url(i)).post('/api/v1/tunnels', { location: 'a' })).body.serverId;

describe('circuit breakers', () => {
  it('are shown over all backends by each of them, and closed on all of them through one', async () => {
    for (const i of [0, 1]) await openBreaker(i);
    for (const i of [0, 1]) {
      const shown = await until(
        async () => {
          const all = await views(i);
          return all.length === 2 && all.every(({ stats: { timeouts } }) => timeouts >= 3) ? all : undefined;
        },
        'both backends show what both have met',
        SOON_MS,
      );
      expect(new Set(shown.map(({ backendId }) => backendId))).toEqual(new Set((await stats(i)).backends));
    }

    // once more on the second alone: its window is fresh, and the 5 s of the breaker begin now
    await reset(0);
    await until(async () => (await views(0)).every(({ state }) => state === 'closed'), 'all are closed', SOON_MS);
    await openBreaker(1);
    const open = async () => (await views(0)).filter(({ state }) => state !== 'closed');
    await until(async () => (await open()).length === 1, 'the first shows it', SOON_MS);
    // the backend that cannot reach the server places elsewhere; the other may not have noticed
    expect(await placedBy(0)).toBe('hangs');

    const answer = await reset(0, { serverId: 'hangs' });
    expect(answer).toMatchObject({ status: 200, body: { reset: 2 } });
    await until(async () => (await open()).length === 0, 'it is closed', SOON_MS);
    expect((await views(1)).map(({ stats: { timeouts } }) => timeouts)).toEqual([0, 0]);
    expect(await placedBy(1)).toBe('hangs');
    const log = (await admin.get('/api/v1/admin/audit?action=circuit_breakers.reset')).body.items;
    expect(log).toMatchObject([{ targetId: 'hangs', details: { breakers: 2 } }, { targetId: null }]);
  });

  it('that are open keep tunnels and free capacity away on their backend', async () => {
    await openBreaker(1);
    // open for 5 s from here on
    expect(await placedBy(1)).toBe('other');
    const location = async (i: number) =>
      (await user.at(plane.url(i)).get('/api/v1/capacity')).body.locations.map(
        ({ location: name }: { location: string }) => name,
      );
    expect(await location(1)).toEqual(['b']);
    expect(await location(0)).toEqual(['a', 'b']);
  });

  it('of a backend that is gone are not shown', async () => {
    const { backends } = await stats(0);
    // in one statement: the others forget it within a second
    await plane.database.query(
      `WITH gone AS (INSERT INTO backends (id, seen_at) VALUES ('01a210f9-0000-7000-8000-00000000dead', now() - interval '16 s') RETURNING id)
       INSERT INTO breaker_views (backend_id, server_id, state, stats, updated_at) SELECT id, 'ghost', 'open', '{}', now() FROM gone`,
    );
    expect((await stats(0)).backends).toEqual(backends);
    expect(await views(0, 'ghost')).toEqual([]);
    const rows = `SELECT FROM breaker_views WHERE server_id = 'ghost'`;
    await until(async () => (await plane.database.query(rows)).length === 0, 'the others forget it', SOON_MS);
  });

  it('are the business of administrators', async () => {
    expect((await user.get('/api/v1/admin/circuit-breaker/stats')).status).toBe(403);
    expect((await user.post('/api/v1/admin/circuit-breaker/reset', {})).status).toBe(403);
    expect((await reset(0, { serverId: 'not a name' })).status).toBe(400);
    expect((await reset(0, { serverId: 'nowhere' })).body).toEqual({ reset: 0 });
  });
});
