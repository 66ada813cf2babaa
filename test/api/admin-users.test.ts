import { randomUUID } from 'node:crypto';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { type Answer, Api } from '../harness/api.js';
import { expectAtBest } from '../harness/at-best.js';
import { Platform } from '../harness/platform.js';
import { connect, isRefused, readExactly } from '../harness/sockets.js';
import { until } from '../harness/until.js';
import { CarryingClient } from '../harness/wire-client.js';
import { ControlPlane } from './control-plane.js';
import type { PlaneClient } from './plane-client.js';
import { inTransaction } from './transaction.js';

/** What a suspension has to be seen on the wire in. */
const WIRE_SECONDS = 2;

let plane: ControlPlane;
let server: PlaneClient;
let admin: Api;

beforeAll(async () => {
  plane = await ControlPlane.start({ backends: 2 });
  server = await plane.newServer('s1', 20_000);
  admin = await plane.admin();
});

afterAll(() => plane?.stop());

interface Account {
  readonly id: string;
  readonly email: string;
  readonly api: Api;
}

async function newAccount(i = 0): Promise<Account> {
  const api = await plane.newUser(i);
  const { id, email } = (await api.get('/api/v1/auth/me')).body;
  return { id, email, api };
}

const path = ({ id }: { id: string }) => `/api/v1/admin/users/${id}`;
const patch = (user: { id: string }, body: object, as = admin, headers: Record<string, string> = {}): Promise<Answer> =>
  as.send('PATCH', path(user), JSON.stringify(body), { 'content-type': 'application/json', ...headers });
const suspend = (user: { id: string }, reason = 'spam', as = admin) => patch(user, { suspended: { reason } }, as);
const auditOf = ({ id }: { id: string }) =>
  plane.database.query('SELECT action, actor_id, target_id, details FROM audit_log WHERE user_id = $1 ORDER BY id', [
    id,
  ]);

async function newAdmin(i = 0): Promise<Account> {
  const account = await newAccount(i);
  expect((await patch(account, { role: 'admin' })).status).toBe(200);
  return account;
}

describe('the list of users', () => {
  it('is filtered, sorted and cut into pages', async () => {
    const mine = await Promise.all(Array.from({ length: 5 }, () => newAccount()));
    const tag = `list-${randomUUID().slice(0, 8)}`;
    for (const [i, { id }] of mine.entries())
      await plane.database.query('UPDATE users SET email = $2 WHERE id = $1', [id, `${tag}-${4 - i}@example.com`]);
    const [first] = mine;
    if (!first) throw new Error('there are five');
    await patch(first, { plan: 'pro' });
    await suspend(first);

    const all = async (query: string): Promise<string[]> => {
      const items = [];
      let cursor = '';
      do {
        const { status, body } = await admin.get(`/api/v1/admin/users?email=${tag}&limit=2&${query}${cursor}`);
        expect(status).toBe(200);
        items.push(...body.items);
        cursor = body.nextCursor === null ? '' : `&cursor=${body.nextCursor}`;
      } while (cursor !== '');
      return items.map(({ id }) => id);
    };
    const ids = mine.map(({ id }) => id);
    expect(await all('sort=email')).toEqual(ids.toReversed());
    expect(await all('sort=-email')).toEqual(ids);
    expect((await all('sort=createdAt')).toSorted()).toEqual(ids.toSorted());
    expect(await all('sort=createdAt')).toEqual((await all('')).toReversed());
    expect(await all('suspended=true')).toEqual([first.id]);
    expect(await all('plan=pro')).toEqual([first.id]);
    expect(await all('suspended=false&role=user')).toHaveLength(4);
    expect(await all('role=admin')).toEqual([]);
    // a wildcard of LIKE is a letter like others
    expect((await admin.get('/api/v1/admin/users?email=%25')).body.items).toEqual([]);
    expect((await admin.get('/api/v1/admin/users?sort=email&cursor=eA')).status).toBe(400);
  });

  it('shows no password, and is for administrators', async () => {
    const { id, api } = await newAccount();
    const shown = await admin.get(`/api/v1/admin/users/${id}`);
    expect(shown.body).toMatchObject({ id, plan: 'free', role: 'user', suspendedAt: null, openTunnels: 0, version: 0 });
    expect(shown.text).not.toMatch(/argon|password/i);
    expect((await api.get('/api/v1/admin/users')).status).toBe(403);
    expect((await api.get(`/api/v1/admin/users/${id}`)).status).toBe(403);
    expect((await patch({ id }, { plan: 'pro' }, api)).status).toBe(403);
    expect((await patch({ id: randomUUID() }, { plan: 'pro' })).status).toBe(404);
    for (const body of [{}, { suspended: true }, { suspended: { reason: '' } }, { plan: 'gold' }, { email: 'x@y.z' }])
      expect((await patch({ id }, body)).status).toBe(400);
  });
});

describe('a change of an account', () => {
  it('counts at once, and is in the audit log with who made it', async () => {
    const user = await newAccount();
    expect(await patch(user, { plan: 'enterprise', name: 'Ada' })).toMatchObject({
      status: 200,
      body: { plan: 'enterprise', name: 'Ada', role: 'user', version: 1 },
    });
    expect((await user.api.get('/api/v1/auth/me')).body).toMatchObject({ plan: 'enterprise', name: 'Ada' });
    const actor = (await admin.get('/api/v1/auth/me')).body.id;
    expect((await auditOf(user)).at(-1)).toEqual({
      action: 'user.updated',
      actor_id: actor,
      target_id: user.id,
      details: { plan: 'enterprise', name: 'Ada', closedTunnels: 0 },
    });
  });

  it('is one of 20 at the same time, on two backends, that are based on the same version', async () => {
    const user = await newAccount();
    const etag = (await admin.get(path(user))).headers.get('etag') ?? '';
    expect(etag).toMatch(/^"0-[0-9a-f]{16}"$/);
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        patch(user, { name: `N${i}` }, admin.at(plane.url(i)), { 'if-match': etag }),
      ),
    );
    expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([
      200,
      ...Array.from({ length: 19 }, () => 412),
    ]);
    const won = answers.find(({ status }) => status === 200);
    const next = won?.headers.get('etag') ?? '';
    expect(next).toMatch(/^"1-[0-9a-f]{16}"$/);
    expect((await admin.get(path(user))).body).toMatchObject({ name: won?.body.name, version: 1 });
    expect((await auditOf(user)).filter(({ action }) => action === 'user.updated')).toHaveLength(1);
    expect((await patch(user, { name: 'x' }, admin, { 'if-match': `W/${next}` })).body.code).toBe(
      'PRECONDITION_FAILED',
    );
    expect((await patch(user, { name: 'x' }, admin, { 'if-match': `${etag}, ${next}` })).status).toBe(200);
  });

  it('leaves no entry in the audit log when it does not happen', async () => {
    const user = await newAccount();
    const entries = async () => (await auditOf(user)).length;
    const before = await entries();
    await inTransaction(plane.database, async (client) => {
      // the deferred trigger fails the statement's transaction at its end, when both have been written
      await client.query(`CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$`);
      await client.query(
        `CREATE CONSTRAINT TRIGGER no AFTER UPDATE ON users DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.name = 'doomed') EXECUTE FUNCTION no()`,
      );
      await client.query('COMMIT');
    });
    expect((await patch(user, { name: 'doomed' })).status).toBe(500);
    expect((await admin.get(path(user))).body).toMatchObject({ name: null, version: 0 });
    expect(await entries()).toBe(before);
  });
});

describe('administrators', () => {
  it('neither demote nor suspend themselves', async () => {
    const self = { id: (await admin.get('/api/v1/auth/me')).body.id };
    for (const body of [{ role: 'user' }, { suspended: { reason: 'tired' } }])
      expect(await patch(self, body)).toMatchObject({ status: 409, body: { code: 'OWN_ACCOUNT' } });
    expect(await patch(self, { name: 'Root', role: 'admin' })).toMatchObject({ status: 200, body: { role: 'admin' } });
  });

  it('who demote or suspend each other at the same time do not leave the platform without one', async () => {
    for (let round = 0; round < 8; round++) {
      const pair = [await newAdmin(0), await newAdmin(1)] as const;
      const others = await plane.database.query(
        `UPDATE users SET role = 'user' WHERE role = 'admin' AND id <> ALL ($1) RETURNING id`,
        [pair.map(({ id }) => id)],
      );
      const [a, b] = pair;
      const answers = await Promise.all([patch(b, { role: 'user' }, a.api), suspend(a, 'a duel', b.api)]);
      // who came second was refused by the function (403), or before by the guard
      expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([
        200,
        expect.toBeOneOf([401, 403]),
      ]);
      const left = await plane.database.query(
        `SELECT count(*)::int AS n FROM users WHERE role = 'admin' AND suspended_at IS NULL`,
      );
      expect(left).toEqual([{ n: 1 }]);
      await plane.database.query(`UPDATE users SET role = 'admin' WHERE id = ANY ($1)`, [others.map(({ id }) => id)]);
    }
  });
});

describe('a suspended account', () => {
  it('is out at once, with its tunnels closed; restored, it may log in and open new ones', async () => {
    const user = await newAccount();
    const opened = (await user.api.post('/api/v1/tunnels', {})).body;
    await user.api.post('/api/v1/tunnels', {});
    const before = (await auditOf(user)).length;
    expect(await suspend(user, 'phishing')).toMatchObject({
      status: 200,
      body: { suspendedReason: 'phishing', openTunnels: 0 },
    });
    expect((await user.api.get('/api/v1/tunnels')).status).toBe(401);
    expect((await server.authorize(opened.token, opened.port)).body.code).toBe('INVALID_SECRET');
    expect((await admin.get(`/api/v1/admin/tunnels/${opened.id}`)).body).toMatchObject({
      state: 'closed',
      closeReason: 'suspended',
    });
    expect(server.calls.filter(({ path: called }) => called === `/tunnels/${opened.id}/close`)).toHaveLength(1);
    expect((await auditOf(user)).slice(before)).toMatchObject([
      { action: 'user.suspended', details: { reason: 'phishing', closedTunnels: 2 } },
    ]);

    expect(await patch(user, { suspended: false })).toMatchObject({
      status: 200,
      body: { suspendedAt: null, suspendedReason: null },
    });
    expect((await auditOf(user)).at(-1)).toMatchObject({ action: 'user.restored' });
    expect((await user.api.post('/api/v1/tunnels', {})).status).toBe(201);
  });

  it('has no tunnel left although it opened some while it was suspended', async () => {
    for (let round = 0; round < 5; round++) {
      const user = await newAccount();
      await Promise.all([
        ...Array.from({ length: 10 }, (_, i) => user.api.at(plane.url(i)).post('/api/v1/tunnels', {})),
        suspend(user, 'a race', admin.at(plane.url(round))),
      ]);
      expect((await admin.get(path(user))).body.openTunnels).toBe(0);
    }
  });

  it('hears of it from the heartbeat of a server that could not be called', async () => {
    const user = await newAccount();
    const opened = (await user.api.post('/api/v1/tunnels', {})).body;
    const session = (await server.authorize(opened.token, opened.port)).body;
    server.unreachable = true;
    expect((await suspend(user)).status).toBe(200);
    server.unreachable = false;
    expect((await server.beat({ sessions: [session] })).body.close).toMatchObject([
      { tunnelId: opened.id, reason: 'suspended' },
    ]);
  });
});

describe('a plan that is lowered', () => {
  it('closes nothing, and refuses the next tunnel', async () => {
    const user = await newAccount();
    await patch(user, { plan: 'enterprise' });
    for (let i = 0; i < 6; i++) expect((await user.api.post('/api/v1/tunnels', {})).status).toBe(201);
    expect(await patch(user, { plan: 'pro' })).toMatchObject({ status: 200, body: { openTunnels: 6 } });
    expect((await user.api.post('/api/v1/tunnels', {})).body.code).toBe('QUOTA_EXCEEDED');
  });
});

describe('on the wire', () => {
  it(`a suspended user's tunnel and its visitors are gone within ${WIRE_SECONDS} s`, async () => {
    const platform = await Platform.start({
      address: '127.0.4.71',
      ports: { min: 20_200, max: 20_209 },
      env: { ADMIN_EMAIL: 'admin@example.com', ADMIN_PASSWORD: 'correct horse battery' },
    });
    try {
      const { body: login } = await new Api(platform.backend.url).post('/api/v1/auth/login', {
        email: 'admin@example.com',
        password: 'correct horse battery',
      });
      await expectAtBest(WIRE_SECONDS * 1000, async () => {
        const user = await platform.newUser();
        const tunnel = await platform.open(user);
        const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, (stream) =>
          stream.pipe(stream),
        );
        const visitor = await connect('127.0.4.71', tunnel.port);
        visitor.write('ping');
        expect(String(await readExactly(visitor, 4))).toBe('ping');
        const gone = new Promise((resolve) => visitor.once('close', resolve).resume());

        const { id } = (await user.get('/api/v1/auth/me')).body;
        const begun = performance.now();
        const answer = await patch({ id }, { suspended: { reason: 'malware' } }, user.withToken(login.accessToken));
        expect(answer.status).toBe(200);
        expect(await client.over).toBe('tunnel closed: suspended');
        await gone;
        await until(() => isRefused('127.0.4.71', tunnel.port), 'nobody listens at the public port');
        const ms = performance.now() - begun;
        client.stop();
        return ms;
      });
    } finally {
      await platform.stop();
    }
  });
});
