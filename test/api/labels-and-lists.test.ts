/** Labels, and lists of tunnels: filters, orders and pages; ports and quotas at their edges. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { ControlPlane } from './control-plane.js';
import type { PlaneClient } from './plane-client.js';

let plane: ControlPlane;
let server: PlaneClient;
let user: Api;

beforeAll(async () => {
  plane = await ControlPlane.start({ backends: 2, env: { PLAN_FREE_TUNNELS: '5' } });
  server = await plane.newServer('s1', 10_000, 500);
});

afterAll(() => plane?.stop());

beforeEach(async () => {
  user = await plane.newUser();
});

const open = (body: object = {}) => user.post('/api/v1/tunnels', body);
const list = (query = '') => user.get(`/api/v1/tunnels${query}`);
const namesOf = async (query: string) =>
  (await list(query)).body.items.map(({ name }: { name: string | null }) => name);

describe('labels', () => {
  it('are kept, shown, replaced as a whole, and left alone by other changes', async () => {
    const labels = { 'team/x': 'ünï — 中', env: '', 'a.b_c-d': 'x'.repeat(128) };
    const { id, ...opened } = (await open({ labels })).body;
    expect(opened.labels).toEqual(labels);
    const change = async (body: object) => (await user.patch(`/api/v1/tunnels/${id}`, body)).body.labels;
    expect(await change({ name: 'n' })).toEqual(labels);
    expect(await change({ labels: { env: 'prod' } })).toEqual({ env: 'prod' });
    expect(await change({ labels: {} })).toEqual({});
  });

  it.each([
    ['too many', Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`k${i}`, 'v']))],
    ['a key in capitals', { A: 'v' }],
    ['a key that ends in a dot', { 'a.': 'v' }],
    ['an empty key', { '': 'v' }],
    ['a long key', { ['k'.repeat(64)]: 'v' }],
    ['a long value', { k: 'x'.repeat(129) }],
    ['a line break', { k: 'a\nb' }],
    ['NUL', { k: '\0' }],
    ['half a character', { k: '\ud800' }],
    ['a number', { k: 1 }],
    ['a list', ['v']],
  ])('are refused: %s', async (_, labels) => {
    expect(await open({ labels })).toMatchObject({ status: 400, body: { code: 'VALIDATION_FAILED' } });
  });
});

describe('the list of tunnels', () => {
  it('is filtered by state, server, location, name and labels', async () => {
    const made = [
      { name: 'api-one', labels: { env: 'prod', team: 'a' } },
      { name: 'api-two', labels: { env: 'test' } },
      { name: 'web', labels: { env: 'prod' } },
      {},
    ];
    const opened = [];
    for (const body of made) opened.push((await open(body)).body);
    const location = opened[0].location;
    await server.authorize(opened[0].token, opened[0].port);
    await user.delete(`/api/v1/tunnels/${opened[2].id}`);
    const cases: [string, (string | null)[]][] = [
      ['?', [null, 'api-two', 'api-one']],
      ['?state=all', [null, 'web', 'api-two', 'api-one']],
      ['?state=closed', ['web']],
      ['?state=active', ['api-one']],
      ['?state=pending', [null, 'api-two']],
      ['?state=offline', []],
      ['?name=api', ['api-two', 'api-one']],
      ['?name=api-t', ['api-two']],
      ['?label=env', ['api-two', 'api-one']],
      ['?label=env:prod&state=all', ['web', 'api-one']],
      ['?label=env:prod&label=team', ['api-one']],
      ['?label=env:', []],
      ['?serverId=s1&limit=1', [null]],
      ['?serverId=s2', []],
      [`?location=${location}&name=api-one`, ['api-one']],
      ['?location=nowhere', []],
    ];
    for (const [query, names] of cases) expect(await namesOf(query), query).toEqual(names);
  });

  it.each(['-createdAt', 'createdAt', 'name', '-name'])(
    'by pages in the order of %s has everything once',
    async (sort) => {
      for (const name of ['b', 'a', undefined, 'c', undefined]) await open(name === undefined ? {} : { name });
      const all = (await list(`?sort=${sort}`)).body.items;
      expect(all).toHaveLength(5);
      const expected = { name: ['a', 'b', 'c', null, null], '-name': ['c', 'b', 'a', null, null] }[sort];
      if (expected) expect(all.map(({ name }: { name: string }) => name)).toEqual(expected);
      const paged = [];
      for (let cursor: string | null = ''; cursor !== null;) {
        const { body }: Awaited<ReturnType<typeof list>> = await list(
          `?limit=1&sort=${sort}${cursor && `&cursor=${cursor}`}`,
        );
        paged.push(...body.items);
        cursor = body.nextCursor;
      }
      expect(paged).toEqual(all);
    },
  );

  it('refuses a cursor of another list, and what is given twice or is unknown', async () => {
    for (let i = 0; i < 2; i++) await open();
    const { nextCursor } = (await list('?limit=1')).body;
    expect((await list(`?limit=2&cursor=${nextCursor}`)).status).toBe(200);
    for (const query of [
      `?cursor=${nextCursor}&sort=createdAt`,
      `?cursor=${nextCursor}&state=all`,
      `?cursor=${nextCursor}&label=a`,
      '?cursor=bm9uZQ',
      '?limit=1&limit=2',
      '?state=open&state=all',
      '?sort=name&sort=name',
      '?sort=port',
      '?label=A',
      `?${'label=a&'.repeat(6)}`,
      '?name=A%25',
      '?other=1',
    ]) {
      expect(await list(query), query).toMatchObject({ status: 400, body: { code: 'VALIDATION_FAILED' } });
    }
  });
});

describe('at the edge', () => {
  it('a quota of five lets five of 20 in that come at once to two backends', async () => {
    const users = [user, user.at(plane.url(1))];
    const answers = await Promise.all(
      Array.from({ length: 20 }, async (_, i) => users[i % 2]?.post('/api/v1/tunnels', {})),
    );
    expect(answers.filter((answer) => answer?.status === 201)).toHaveLength(5);
    expect(answers.filter((answer) => answer?.body.code === 'QUOTA_EXCEEDED')).toHaveLength(15);
  });

  it('a port is its owner’s while the tunnel is offline', async () => {
    const { id, token, port } = (await open()).body;
    const session = (await server.authorize(token, port)).body;
    await server.beat({ ended: [session] });
    expect((await user.get(`/api/v1/tunnels/${id}`)).body.state).toBe('offline');
    const other = await plane.newUser();
    expect((await other.post('/api/v1/tunnels', { port })).body.code).toBe('PORT_TAKEN');
    expect((await server.authorize(token, port)).body.port).toBe(port);
    await user.delete(`/api/v1/tunnels/${id}`);
    expect((await other.post('/api/v1/tunnels', { port })).status).toBe(201);
  });

  it('a client that connects while its tunnel is deleted carries nothing afterwards (50 rounds)', async () => {
    for (let round = 0; round < 50; round++) {
      const { id, token, port } = (await open()).body;
      const [session] = await Promise.all([server.authorize(token, port), user.delete(`/api/v1/tunnels/${id}`)]);
      const [row] = await plane.database.query('SELECT state::text FROM tunnels WHERE id = $1', [id]);
      expect(row?.['state']).toBe('closed');
      const { body } = await server.beat({ sessions: session.status === 200 ? [session.body] : [] });
      expect(body.close).toHaveLength(session.status === 200 ? 1 : 0);
      const left = `SELECT FROM tunnel_sessions WHERE tunnel_id = $1 AND disconnected_at IS NULL`;
      expect(await plane.database.query(left, [id])).toEqual([]);
    }
  });

  it('of two tunnels renamed to one name at once, one is', async () => {
    const ids = [(await open()).body.id, (await open()).body.id];
    const users = [user, user.at(plane.url(1))];
    for (let round = 0; round < 10; round++) {
      const answers = await Promise.all(
        ids.map(async (id, i) => users[i]?.patch(`/api/v1/tunnels/${id}`, { name: `wanted-${round}` })),
      );
      expect(new Set(answers.map((answer) => answer?.status))).toEqual(new Set([200, 409]));
    }
  });
});
