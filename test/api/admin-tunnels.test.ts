import { randomUUID } from 'node:crypto';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { ControlPlane } from './control-plane.js';
import type { PlaneClient } from './plane-client.js';
import { inTransaction, somebodyWaits } from './transaction.js';

let plane: ControlPlane;
let admin: Api;
let one: PlaneClient;

beforeAll(async () => {
  plane = await ControlPlane.start({ backends: 2 });
  admin = await plane.admin();
  one = await plane.newServer('one', 21_200, 20);
  await plane.newServer('two', 21_300, 20);
});

afterAll(() => plane?.stop());

const PATH = '/api/v1/admin/tunnels';
const open = async (user: Api, port: number) => (await user.post('/api/v1/tunnels', { port })).body;
const idOf = async (user: Api): Promise<string> => (await user.get('/api/v1/auth/me')).body.id;
const auditOf = (id: string) =>
  plane.database.query(
    `SELECT action, user_id, actor_id, details FROM audit_log WHERE target_id = $1 AND action = 'tunnel.closed' AND details ->> 'closeReason' = 'revoked'`,
    [id],
  );

describe('the list of all tunnels', () => {
  it('is filtered, sorted and cut into pages, and shows no secret', async () => {
    const [ann, bob] = [await plane.newUser(), await plane.newUser()];
    const before = new Date().toISOString();
    const first = await open(ann, 21_201);
    const second = await open(bob, 21_301);
    const third = await open(ann, 21_302);
    const fourth = await open(bob, 21_303);
    await one.authorize(first.token, first.port);
    await bob.delete(`/api/v1/tunnels/${fourth.id}`);

    const ids = async (query: string): Promise<string[]> => {
      const found = [];
      for (let cursor = ''; ;) {
        const { status, body, text } = await admin.get(`${PATH}?since=${before}&limit=2&${query}${cursor}`);
        expect(status).toBe(200);
        expect(text).not.toMatch(/tk_|sealed|"token"/i);
        found.push(...body.items.map(({ id }: { id: string }) => id));
        if (body.nextCursor === null) return found;
        cursor = `&cursor=${body.nextCursor}`;
      }
    };
    expect(await ids('')).toEqual([third.id, second.id, first.id]);
    expect(await ids('sort=createdAt&state=all')).toEqual([first.id, second.id, third.id, fourth.id]);
    expect(await ids('state=active')).toEqual([first.id]);
    expect(await ids('state=pending')).toEqual([third.id, second.id]);
    expect(await ids('state=closed')).toEqual([fourth.id]);
    expect(await ids(`userId=${await idOf(ann)}`)).toEqual([third.id, first.id]);
    expect(await ids('serverId=two')).toEqual([third.id, second.id]);
    expect(await ids('port=21301')).toEqual([second.id]);
    expect((await admin.get(`${PATH}?since=${new Date(Date.now() + 60_000).toISOString()}`)).body.items).toEqual([]);

    const { email } = (await ann.get('/api/v1/auth/me')).body;
    expect((await admin.get(`${PATH}/${first.id}`)).body).toMatchObject({
      id: first.id,
      userId: await idOf(ann),
      ownerEmail: email,
      serverId: 'one',
      state: 'active',
    });
  });

  it('is for administrators', async () => {
    const user = await plane.newUser();
    const { id } = await open(user, 21_205);
    expect((await user.get(PATH)).status).toBe(403);
    expect((await user.get(`${PATH}/${id}`)).status).toBe(403);
    expect((await user.delete(`${PATH}/${id}`)).status).toBe(403);
    expect((await admin.get(`${PATH}/${randomUUID()}`)).status).toBe(404);
    expect((await admin.delete(`${PATH}/${randomUUID()}`)).status).toBe(404);
    expect((await admin.get(`${PATH}?state=odd`)).status).toBe(400);
  });
});

describe('closing somebody’s tunnel', () => {
  it('ends it on the wire and is in the audit log once, however many ask for it', async () => {
    const user = await plane.newUser();
    const { id, token, port } = await open(user, 21_206);
    await one.authorize(token, port);
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, i) => admin.at(plane.url(i)).delete(`${PATH}/${id}`)),
    );
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 204));
    expect((await user.get(`/api/v1/tunnels/${id}`)).body).toMatchObject({ state: 'closed', closeReason: 'revoked' });
    expect(one.calls.filter(({ path }) => path === `/tunnels/${id}/close`)).toMatchObject([
      { body: '{"reason":"revoked"}' },
    ]);
    expect(await auditOf(id)).toMatchObject([{ user_id: await idOf(user), actor_id: await idOf(admin) }]);
    // its owner is not suspended, and its port is not in quarantine
    expect((await open(user, port)).port).toBe(port);
  });
});

describe('an administrator who is demoted while a request of theirs waits', () => {
  it.each([
    ['closes', (as: Api, id: string) => as.delete(`${PATH}/${id}`)],
    ['suspends', (as: Api, id: string) => as.post(`${PATH}/${id}/suspend`, { reason: 'grudge' })],
  ])('%s nothing any more', async (_, request) => {
    const [user, demoted] = [await plane.newUser(), await plane.newUser()];
    const demotedId = await idOf(demoted);
    const { id } = await open(user, 21_210);
    await admin.patch(`/api/v1/admin/users/${demotedId}`, { role: 'admin' });
    await inTransaction(plane.database, async (client) => {
      await client.query('SELECT lock_capacity()');
      const asked = request(demoted, id);
      await somebodyWaits(plane.database);
      await client.query(`UPDATE users SET role = 'user' WHERE id = $1`, [demotedId]);
      await client.query('COMMIT');
      expect(await asked).toMatchObject({ status: 403, body: { code: 'FORBIDDEN' } });
    });
    expect((await user.get(`/api/v1/tunnels/${id}`)).body.state).toBe('pending');
    expect(await auditOf(id)).toEqual([]);
    await user.delete(`/api/v1/tunnels/${id}`);
  });
});
