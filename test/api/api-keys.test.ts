import { randomUUID } from 'node:crypto';
import { crc32 } from 'node:zlib';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { startBackend } from '../harness/backend.js';
import type { TestDatabase } from '../harness/database.js';
import { until } from '../harness/until.js';
import { inTransaction, somebodyWaits } from './transaction.js';
import { ControlPlane } from './control-plane.js';

const PASSWORD = 'correct horse battery';
const KEYS = '/api/v1/auth/api-keys';
const BASE62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

let plane: ControlPlane;
let database: TestDatabase;
let api: Api;
let other: Api;

beforeAll(async () => {
  plane = await ControlPlane.start({ backends: 2 });
  database = plane.database;
  api = new Api(plane.url(0));
  other = new Api(plane.url(1));
});

afterAll(() => plane?.stop());

/** A new account, logged in. */
async function newAccount(): Promise<{ id: string; email: string; login: Api }> {
  const email = `${randomUUID()}@example.com`;
  const { body } = await api.post('/api/v1/auth/signup', { email, password: PASSWORD });
  return { id: body.user.id, email, login: api.withToken(body.accessToken) };
}

const newKey = (login: Api, body: object = {}) =>
  login.post(KEYS, { name: 'deploy', scopes: ['tunnels:read', 'capacity:read'], ...body });

/** What a leak scanner does, in its own words: the number of a body, in base62. */
function checksumOf(body: string): string {
  let [text, rest] = ['', crc32(body)];
  while (rest > 0) {
    text = `${BASE62[rest % 62]}${text}`;
    rest = Math.floor(rest / 62);
  }
  return text.padStart(6, '0');
}

/** The key with its last character but `n` changed, under a checksum that is right again. */
function changed(key: string, n: number): string {
  const body = key.slice(0, -6);
  const at = body.length - 1 - n;
  const altered = `${body.slice(0, at)}${body[at] === 'a' ? 'b' : 'a'}${body.slice(at + 1)}`;
  return altered + checksumOf(altered);
}

describe('an API key', () => {
  it('is shown once, and known by its form alone', async () => {
    const { id, login } = await newAccount();
    const created = await newKey(login, { expiresAt: '2099-01-01T00:00:00Z' });
    expect(created).toMatchObject({
      status: 201,
      body: {
        name: 'deploy',
        scopes: ['tunnels:read', 'capacity:read'],
        expiresAt: '2099-01-01T00:00:00.000Z',
        lastUsedAt: null,
        revokedAt: null,
      },
    });
    expect(created.headers.get('cache-control')).toBe('no-store');
    const { key, ...view } = created.body;
    expect(key).toMatch(/^bk_[0-9A-Za-z]{22}_[0-9A-Za-z]{38}$/);
    expect(key.slice(-6)).toBe(checksumOf(key.slice(0, -6)));

    expect((await login.get(KEYS)).body).toEqual({ items: [view], nextCursor: null });
    const secret = key.slice(26, 58);
    expect((await api.withToken(key).get('/api/v1/tunnels')).status).toBe(200);
    const stored = JSON.stringify(
      await database.query(
        `SELECT to_jsonb(k) || jsonb_build_object('hash', encode(hash, 'escape')) AS k FROM api_keys k`,
      ),
    );
    const audit = await database.query(
      `SELECT actor_id, target_type, target_id, details FROM audit_log WHERE user_id = $1 AND action = 'api_key.created'`,
      [id],
    );
    const logs = plane.backends.map((backend) => backend.output());
    for (const place of [stored, JSON.stringify(audit), ...logs]) expect(place).not.toContain(secret);
    expect(audit).toEqual([
      {
        actor_id: id,
        target_type: 'api_key',
        target_id: view.id,
        details: { name: 'deploy', scopes: 'tunnels:read capacity:read', expiresAt: '2099-01-01T00:00:00Z' },
      },
    ]);
  });

  it('may do what its scopes say, at every backend, and is told what it lacks', async () => {
    const { login } = await newAccount();
    const { key } = (await newKey(login)).body;
    for (const at of [api, other]) {
      expect((await at.withToken(key).get('/api/v1/tunnels')).status).toBe(200);
      expect((await at.withToken(key).get('/api/v1/capacity')).status).toBe(200);
      expect(await at.withToken(key).post('/api/v1/tunnels', {})).toMatchObject({
        status: 403,
        body: { code: 'SCOPE_MISSING', detail: 'This needs the scope tunnels:write' },
      });
    }
  });

  it('never does what needs a login', async () => {
    const { login } = await newAccount();
    const created = (await newKey(login, { scopes: ['tunnels:read', 'tunnels:write', 'usage:read', 'capacity:read'] }))
      .body;
    const program = api.withToken(created.key);
    for (const answer of [
      await program.get('/api/v1/auth/me'),
      await program.get('/api/v1/auth/sessions'),
      await program.delete(`/api/v1/auth/sessions/${randomUUID()}`),
      await program.post('/api/v1/auth/logout', undefined),
      await program.post('/api/v1/auth/logout-all', undefined),
      await program.get(KEYS),
      await newKey(program),
      await program.delete(`${KEYS}/${created.id}`),
    ]) {
      expect(answer).toMatchObject({ status: 403, body: { code: 'LOGIN_REQUIRED' } });
    }
    expect((await login.get('/api/v1/auth/me')).status).toBe(200);
  });

  it('ends with the next request when it is revoked, expires, or its owner is suspended', async () => {
    const { id, login } = await newAccount();
    const [revoked, expired, suspended] = [await newKey(login), await newKey(login), await newKey(login)];
    const use = ({ body }: { body: { key: string } }, at = other) => at.withToken(body.key).get('/api/v1/tunnels');
    for (const key of [revoked, expired, suspended]) expect((await use(key)).status).toBe(200);

    expect((await login.delete(`${KEYS}/${revoked.body.id}`)).status).toBe(204);
    await database.query('UPDATE api_keys SET expires_at = now() WHERE id = $1', [expired.body.id]);
    expect(await use(revoked)).toMatchObject({ status: 401, body: { code: 'UNAUTHENTICATED' } });
    expect((await use(expired)).status).toBe(401);
    expect((await use(suspended)).status).toBe(200);
    await database.query('UPDATE users SET suspended_at = now() WHERE id = $1', [id]);
    expect((await use(suspended)).status).toBe(401);
    await database.query('UPDATE users SET suspended_at = NULL WHERE id = $1', [id]);
    expect((await use(suspended)).status).toBe(200);

    expect((await login.delete(`${KEYS}/${revoked.body.id}`)).status).toBe(404);
    expect((await login.get(KEYS)).body.items).toEqual([
      expect.objectContaining({ id: suspended.body.id, revokedAt: null }),
      expect.objectContaining({ id: expired.body.id }),
      expect.objectContaining({ id: revoked.body.id, revokedAt: expect.any(String) }),
    ]);
    const audit = `SELECT target_id FROM audit_log WHERE user_id = $1 AND action = 'api_key.revoked'`;
    expect(await database.query(audit, [id])).toEqual([{ target_id: revoked.body.id }]);
  });

  it('is seen and revoked by its owner alone', async () => {
    const [owner, stranger] = [await newAccount(), await newAccount()];
    const { id, key } = (await newKey(owner.login)).body;
    expect((await stranger.login.get(KEYS)).body.items).toEqual([]);
    expect(await stranger.login.delete(`${KEYS}/${id}`)).toMatchObject({ status: 404, body: { code: 'NOT_FOUND' } });
    expect((await api.withToken(key).get('/api/v1/tunnels')).status).toBe(200);
  });

  it('is one of 20 at most that work, of parallel requests at two backends too', async () => {
    const { login } = await newAccount();
    const answers = await Promise.all(
      Array.from({ length: 25 }, (_, i) => newKey(i % 2 ? login : login.at(plane.url(1)))),
    );
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(20);
    expect(answers.filter(({ status, body }) => status === 409 && body.code === 'API_KEY_LIMIT')).toHaveLength(5);
    const [first, second] = (await login.get(KEYS)).body.items;
    await login.delete(`${KEYS}/${first.id}`);
    expect((await newKey(login)).status).toBe(201);
    expect((await newKey(login)).status).toBe(409);
    await database.query('UPDATE api_keys SET expires_at = now() WHERE id = $1', [second.id]);
    expect((await newKey(login)).status).toBe(201);
  });

  it('notes its use once a minute, and not with every request', async () => {
    const { login } = await newAccount();
    const { id, key } = (await newKey(login)).body;
    const use = async () => expect((await api.withToken(key).get('/api/v1/tunnels')).status).toBe(200);
    const row = () => database.query('SELECT xmin::text, last_used_at FROM api_keys WHERE id = $1', [id]);
    await use();
    const [before] = await row();
    expect(before?.['last_used_at']).toBeInstanceOf(Date);
    for (let i = 0; i < 5; i++) await use();
    expect(await row()).toEqual([before]);
    await database.query(`UPDATE api_keys SET last_used_at = now() - interval '2 minutes' WHERE id = $1`, [id]);
    await use();
    const [noted] = await row();
    expect(Date.now() - new Date(String(noted?.['last_used_at'])).getTime()).toBeLessThan(60_000);
  });
});

describe('a key that is made while its account’s logins end', () => {
  it.each([
    ['all at once', (login: Api) => login.post('/api/v1/auth/logout-all', undefined)],
    ['this one', (login: Api) => login.post('/api/v1/auth/logout', undefined)],
  ])('(%s) is not made: who has lost the login has no key to come back with', async (_, end) => {
    const { id, login } = await newAccount();
    let ending: Promise<unknown> | undefined;
    let making: ReturnType<typeof newKey> | undefined;
    await inTransaction(database, async (client) => {
      await client.query('SELECT FROM users WHERE id = $1 FOR UPDATE', [id]);
      ending = end(login);
      await Promise.race([ending, somebodyWaits(database)]);
      making = newKey(login.at(plane.url(1)));
      await Promise.race([making, somebodyWaits(database, 2)]);
    });
    await ending;
    expect(await making).toMatchObject({ status: 401, body: { code: 'UNAUTHENTICATED' } });
    expect(await database.query('SELECT FROM api_keys WHERE user_id = $1', [id])).toEqual([]);
  });
});

describe('a key that is none', () => {
  it('is refused for each of its reasons', async () => {
    const { login } = await newAccount();
    const { key } = (await newKey(login)).body;
    const body = key.slice(0, -6);
    const wrong = {
      'another secret': changed(key, 0),
      'another id': changed(key, 33),
      'an id above every UUID': `bk_${'z'.repeat(22)}_${key.slice(26, 58)}`.replace(
        /$/,
        checksumOf(`bk_${'z'.repeat(22)}_${key.slice(26, 58)}`),
      ),
      'a wrong checksum': `${body}${key.endsWith('0') ? key.slice(-6, -1) + '1' : `${key.slice(-6, -1)}0`}`,
      'no checksum': body,
      'something behind it': `${key}x`,
      'other letters': key.toUpperCase().replace('BK_', 'bk_'),
      'its beginning': 'bk_',
      'a huge one': `bk_${'a'.repeat(10_000)}`,
    };
    for (const [name, token] of Object.entries(wrong)) {
      expect(await api.withToken(token).get('/api/v1/tunnels'), name).toMatchObject({
        status: 401,
        body: { code: 'UNAUTHENTICATED' },
      });
    }
    expect((await api.withToken(key).get('/api/v1/tunnels')).status).toBe(200);
  });

  it('is refused without asking the database when its checksum is wrong', async () => {
    const { login } = await newAccount();
    const { key } = (await newKey(login)).body;
    let right: Promise<{ status: number }> | undefined;
    await inTransaction(database, async (client) => {
      await client.query('LOCK TABLE api_keys, users, auth_sessions, refresh_tokens IN ACCESS EXCLUSIVE MODE');
      for (let at = 3; at < key.length; at++) {
        if (key[at] === '_') continue;
        const slip = `${key.slice(0, at)}${key[at] === 'a' ? 'b' : 'a'}${key.slice(at + 1)}`;
        expect((await api.withToken(slip).get('/api/v1/tunnels')).status).toBe(401);
      }
      right = api.withToken(key).get('/api/v1/tunnels');
      await somebodyWaits(database);
    });
    expect((await right)?.status).toBe(200);
  });
});

describe('scopes of administrators', () => {
  it('are given by administrators alone, and work while the owner is one', async () => {
    const user = await newAccount();
    expect(await newKey(user.login, { scopes: ['tunnels:read', 'admin:read'] })).toMatchObject({
      status: 403,
      body: { code: 'FORBIDDEN' },
    });
    const session = await api.post('/api/v1/auth/login', { email: 'admin@example.com', password: PASSWORD });
    const admin = api.withToken(session.body.accessToken);
    const ordinary = api.withToken((await newKey(admin, { scopes: ['tunnels:read'] })).body.key);
    const reader = api.withToken((await newKey(admin, { scopes: ['admin:read'] })).body.key);
    expect(await ordinary.get('/api/v1/admin/servers')).toMatchObject({ status: 403, body: { code: 'SCOPE_MISSING' } });
    expect((await reader.get('/api/v1/admin/servers')).status).toBe(200);
    expect(await reader.post('/api/v1/admin/servers', {})).toMatchObject({
      status: 403,
      body: { code: 'SCOPE_MISSING' },
    });

    await database.query(`UPDATE users SET role = 'user' WHERE email = 'admin@example.com'`);
    try {
      expect(await reader.get('/api/v1/admin/servers')).toMatchObject({ status: 403, body: { code: 'FORBIDDEN' } });
      expect(await newKey(admin, { scopes: ['admin:read'] })).toMatchObject({
        status: 403,
        body: { code: 'FORBIDDEN' },
      });
    } finally {
      await database.query(`UPDATE users SET role = 'admin' WHERE email = 'admin@example.com'`);
    }
    expect((await reader.get('/api/v1/admin/servers')).status).toBe(200);
  });
});

describe('a request for a key', () => {
  it.each([
    ['scopes', { scopes: [] }],
    ['scopes.0', { scopes: ['everything'] }],
    ['scopes', { scopes: ['tunnels:read', 'tunnels:read'] }],
    ['expiresAt', { expiresAt: '2020-01-01T00:00:00Z' }],
    ['expiresAt', { expiresAt: 'tomorrow' }],
    ['name', { name: 'a\u202Eb' }],
    ['name', { name: '' }],
  ])('that is wrong in %s is refused: %o', async (path, body) => {
    const { login } = await newAccount();
    const answer = await newKey(login, body);
    expect(answer).toMatchObject({ status: 400, body: { code: 'VALIDATION_FAILED' } });
    expect(answer.body.errors[0].path).toBe(path);
    expect((await login.get(KEYS)).body.items).toEqual([]);
  });
});

describe('housekeeping', () => {
  it('deletes keys that ended a month ago', async () => {
    const { login } = await newAccount();
    const [revoked, expired, recent, open] = await Promise.all(
      [1, 2, 3, 4].map(async () => (await newKey(login)).body.id),
    );
    await database.query(`UPDATE api_keys SET revoked_at = now() - interval '31 days' WHERE id = $1`, [revoked]);
    await database.query(`UPDATE api_keys SET expires_at = now() - interval '31 days' WHERE id = $1`, [expired]);
    await database.query(`UPDATE api_keys SET revoked_at = now() - interval '29 days' WHERE id = $1`, [recent]);
    const keeper = await startBackend({ database, env: { HOUSEKEEPING_INTERVAL_MS: '50' } });
    try {
      const ids = async () => (await login.get(KEYS)).body.items.map(({ id }: { id: string }) => id);
      // the other backends put their own, rarer schedule back every 10 s
      await until(async () => (await ids()).length === 2, 'the keys are forgotten', 40_000);
      expect(new Set(await ids())).toEqual(new Set([recent, open]));
    } finally {
      await keeper.stop();
    }
  });
});
