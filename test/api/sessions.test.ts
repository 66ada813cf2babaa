import { randomUUID } from 'node:crypto';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { startBackend } from '../harness/backend.js';
import type { TestDatabase } from '../harness/database.js';
import { until } from '../harness/until.js';
import { ControlPlane } from './control-plane.js';

const PASSWORD = 'correct horse battery';
/** The other backends put their own, rarer schedule back every 10 s, and do some of the jobs in their own way. */
const KEEPER_MS = 40_000;
const SESSIONS = '/api/v1/auth/sessions';

let plane: ControlPlane;
let database: TestDatabase;
let api: Api;
let other: Api;

beforeAll(async () => {
  // all of them are keepers: any may do the job that forgets
  plane = await ControlPlane.start({ backends: 2, env: { AUDIT_RETENTION_DAYS: '100' } });
  database = plane.database;
  api = new Api(plane.url(0));
  other = new Api(plane.url(1));
});

afterAll(() => plane?.stop());

interface Login {
  readonly accessToken: string;
  readonly refreshToken: string;
  readonly user: { readonly id: string; readonly email: string };
}

const newAccount = async (): Promise<Login> =>
  (await api.post('/api/v1/auth/signup', { email: `${randomUUID()}@example.com`, password: PASSWORD })).body;
const login = async ({ user: { email } }: Login, at = api): Promise<Login> =>
  (await at.post('/api/v1/auth/login', { email, password: PASSWORD })).body;
const refresh = (refreshToken: string, at = api) => at.post('/api/v1/auth/refresh', { refreshToken });
const me = (token: string, at = api) => at.withToken(token).get('/api/v1/auth/me');
const audited = (userId: string, action: string) =>
  database.query('SELECT actor_id, target_type, target_id, details FROM audit_log WHERE user_id = $1 AND action = $2', [
    userId,
    action,
  ]);
/** The id of a login's session, by the account's own list. */
const sessionOf = async (of: Login): Promise<string> =>
  (await api.withToken(of.accessToken).get(SESSIONS)).body.items.find(({ current }: { current: boolean }) => current)
    .id;

describe('the list of sessions', () => {
  it('shows one’s own, newest first, page by page, from where and with what', async () => {
    const first = await newAccount();
    const answer = await api.send(
      'POST',
      '/api/v1/auth/login',
      JSON.stringify({ email: first.user.email, password: PASSWORD }),
      {
        'content-type': 'application/json',
        'user-agent': 'x'.repeat(300),
      },
    );
    await newAccount();
    const mine = api.withToken(answer.body.accessToken);
    const { status, body } = await mine.get(SESSIONS);
    expect(status).toBe(200);
    expect(body).toEqual({
      items: [
        expect.objectContaining({ current: true, userAgent: 'x'.repeat(200), clientAddress: '127.0.0.1' }),
        expect.objectContaining({ current: false }),
      ],
      nextCursor: null,
    });
    expect(Object.keys(body.items[0]).sort()).toEqual(
      ['clientAddress', 'createdAt', 'current', 'expiresAt', 'id', 'lastUsedAt', 'userAgent'].sort(),
    );
    const days = (Date.parse(body.items[0].expiresAt) - Date.now()) / 86_400_000;
    expect(days).toBeGreaterThan(29.9);
    expect(days).toBeLessThan(30.1);

    const page = await mine.get(`${SESSIONS}?limit=1`);
    expect(page.body.items).toEqual([body.items[0]]);
    const next = await mine.get(`${SESSIONS}?limit=1&cursor=${page.body.nextCursor}`);
    expect(next.body).toEqual({ items: [body.items[1]], nextCursor: null });
    expect(await mine.get(`${SESSIONS}?cursor=nonsense`)).toMatchObject({
      status: 400,
      body: { code: 'VALIDATION_FAILED' },
    });
  });

  it('notes use once a minute, and not with every request', async () => {
    const account = await newAccount();
    const id = await sessionOf(account);
    const row = () => database.query('SELECT xmin::text, last_used_at FROM auth_sessions WHERE id = $1', [id]);
    const before = await row();
    for (let i = 0; i < 5; i++) expect((await me(account.accessToken)).status).toBe(200);
    expect(await row()).toEqual(before);

    await database.query(`UPDATE auth_sessions SET last_used_at = now() - interval '2 minutes' WHERE id = $1`, [id]);
    expect((await me(account.accessToken, other)).status).toBe(200);
    const [noted] = await row();
    expect(Date.now() - new Date(String(noted?.['last_used_at'])).getTime()).toBeLessThan(60_000);
  });
});

describe('a session', () => {
  it('is ended by its owner, at once and at every backend, and by nobody else', async () => {
    const account = await newAccount();
    const lost = await login(account, other);
    const [stranger, id] = [await newAccount(), await sessionOf(lost)];
    expect(await api.withToken(stranger.accessToken).delete(`${SESSIONS}/${id}`)).toMatchObject({
      status: 404,
      body: { code: 'NOT_FOUND' },
    });
    expect((await me(lost.accessToken, other)).status).toBe(200);

    const mine = api.withToken(account.accessToken);
    expect((await mine.delete(`${SESSIONS}/${id}`)).status).toBe(204);
    expect(await me(lost.accessToken, other)).toMatchObject({ status: 401, body: { code: 'UNAUTHENTICATED' } });
    expect(await refresh(lost.refreshToken)).toMatchObject({ status: 401, body: { code: 'INVALID_REFRESH_TOKEN' } });
    expect((await mine.delete(`${SESSIONS}/${id}`)).status).toBe(404);
    expect((await mine.delete(`${SESSIONS}/x`)).status).toBe(400);
    expect((await mine.get(SESSIONS)).body.items).toHaveLength(1);
    expect(await audited(account.user.id, 'session.ended')).toEqual([
      { actor_id: account.user.id, target_type: 'session', target_id: id, details: { reason: 'ended_by_owner' } },
    ]);
  });

  it('ends with all others of its account, the one that asks included', async () => {
    const account = await newAccount();
    const all = [account, await login(account), await login(account, other)];
    const stranger = await newAccount();
    expect((await api.withToken(account.accessToken).post('/api/v1/auth/logout-all', undefined)).status).toBe(204);
    for (const { accessToken, refreshToken } of all) {
      expect((await me(accessToken, other)).status).toBe(401);
      expect((await refresh(refreshToken, other)).status).toBe(401);
    }
    expect((await me(stranger.accessToken)).status).toBe(200);
    expect(await audited(account.user.id, 'sessions.ended')).toEqual([
      {
        actor_id: account.user.id,
        target_type: 'user',
        target_id: account.user.id,
        details: { reason: 'logout_all', sessions: 3 },
      },
    ]);
  });

  it.each(["last_used_at = now() - interval '14 days'", 'expires_at = now()'])('ends by time: %s', async (change) => {
    const account = await newAccount();
    const ended = await login(account);
    await database.query(`UPDATE auth_sessions SET ${change} WHERE id = $1`, [await sessionOf(ended)]);
    expect((await me(ended.accessToken)).status).toBe(401);
    expect((await refresh(ended.refreshToken)).status).toBe(401);
    expect((await api.withToken(account.accessToken).get(SESSIONS)).body.items).toHaveLength(1);
  });

  it('is one of 100 at most, over both backends: the oldest ends when one more begins', async () => {
    const account = await newAccount();
    await database.query(
      `INSERT INTO auth_sessions (id, user_id, expires_at)
       SELECT ('0190' || lpad(to_hex(n), 28, '0'))::uuid, $1, now() + interval '1 day' FROM generate_series(1, 99) n`,
      [account.user.id],
    );
    const logins = await Promise.all(Array.from({ length: 8 }, (_, i) => login(account, i % 2 ? api : other)));
    for (const { accessToken } of [account, ...logins]) expect((await me(accessToken)).status).toBe(200);
    const rest = await database.query(
      `SELECT count(*)::int AS alive, min(id::text) AS oldest FROM auth_sessions WHERE user_id = $1 AND ended_at IS NULL`,
      [account.user.id],
    );
    expect(rest).toEqual([{ alive: 100, oldest: '01900000-0000-0000-0000-000000000009' }]);
    const displaced = await audited(account.user.id, 'session.ended');
    expect(displaced).toHaveLength(8);
    expect(displaced[0]).toMatchObject({ details: { reason: 'too_many' } });
  });
});

describe('refreshing', () => {
  it('lets exactly one of 20 parallel refreshes through, at two backends, and harms nobody', async () => {
    const account = await newAccount();
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) => refresh(account.refreshToken, i % 2 ? api : other)),
    );
    expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([
      200,
      ...Array.from({ length: 19 }, () => 401),
    ]);
    const winner = answers.find(({ status }) => status === 200)?.body;
    expect((await me(winner.accessToken)).status).toBe(200);
    expect((await refresh(winner.refreshToken)).status).toBe(200);
    expect(await audited(account.user.id, 'session.refresh_token_reused')).toEqual([]);
  });

  it('forgives the token that was spent last, for ten seconds', async () => {
    const account = await newAccount();
    const second = (await refresh(account.refreshToken)).body;
    expect((await refresh(account.refreshToken)).status).toBe(401);
    expect((await me(second.accessToken)).status).toBe(200);

    await database.query(
      `UPDATE refresh_tokens SET spent_at = now() - interval '11 seconds' WHERE session_id = $1 AND spent_at IS NOT NULL`,
      [await sessionOf(account)],
    );
    expect((await refresh(account.refreshToken)).status).toBe(401);
    expect((await me(second.accessToken)).status).toBe(401);
    expect((await refresh(second.refreshToken)).status).toBe(401);
  });

  it('forgives no older one: its session ends, and the log says so', async () => {
    const account = await newAccount();
    const id = await sessionOf(account);
    const second = (await refresh(account.refreshToken)).body;
    const third = (await refresh(second.refreshToken)).body;
    expect((await refresh(account.refreshToken, other)).status).toBe(401);
    expect((await me(third.accessToken)).status).toBe(401);
    expect((await refresh(third.refreshToken)).status).toBe(401);
    expect(await audited(account.user.id, 'session.refresh_token_reused')).toEqual([
      { actor_id: null, target_type: 'session', target_id: id, details: {} },
    ]);
  });

  it('keeps 1,000 spent tokens of a session, the latest', async () => {
    const account = await newAccount();
    const id = await sessionOf(account);
    await database.query(
      `INSERT INTO refresh_tokens (hash, session_id, spent_at)
       SELECT sha256(n::text::bytea), $1, now() - make_interval(mins => n) FROM generate_series(1, 1200) n`,
      [id],
    );
    expect((await refresh(account.refreshToken)).status).toBe(200);
    expect(
      await database.query(
        `SELECT count(spent_at)::int AS spent, bool_or(hash = sha256('1')) AS latest, bool_or(hash = sha256('1200')) AS first
         FROM refresh_tokens WHERE session_id = $1`,
        [id],
      ),
    ).toEqual([{ spent: 1_000, latest: true, first: false }]);
  });
});

describe('the audit log', () => {
  it('says who signed up and in, from where, and who tried to', async () => {
    const account = await newAccount();
    const { id, email } = account.user;
    await login(account);
    const wrong = (address: string) => api.post('/api/v1/auth/login', { email: address, password: 'a secret' });
    const requestId = String((await wrong(email)).headers.get('x-request-id'));
    const unknown = `${randomUUID()}@example.com`;
    const unknownId = String((await wrong(unknown)).headers.get('x-request-id'));
    await database.query('UPDATE users SET suspended_at = now() WHERE id = $1', [id]);
    await api.post('/api/v1/auth/login', { email, password: PASSWORD });

    const entries = await database.query('SELECT action FROM audit_log WHERE user_id = $1 ORDER BY id', [id]);
    expect(entries.map(({ action }) => action)).toEqual([
      'account.signed_up',
      'login.succeeded',
      'login.succeeded',
      'login.failed',
      'login.refused',
    ]);
    const failed = (request: string) =>
      database.query('SELECT action, actor_id, user_id, client_address FROM audit_log WHERE request_id = $1', [
        request,
      ]);
    const common = { action: 'login.failed', actor_id: null, client_address: '127.0.0.1' };
    expect(await failed(requestId)).toEqual([{ ...common, user_id: id }]);
    expect(await failed(unknownId)).toEqual([{ ...common, user_id: null }]);
    const everything = JSON.stringify(await database.query('SELECT to_jsonb(a) AS entry FROM audit_log a'));
    for (const secret of [PASSWORD, 'a secret', unknown, account.refreshToken])
      expect(everything).not.toContain(secret);
  });
});

describe('housekeeping', { timeout: 3 * KEEPER_MS }, () => {
  it('deletes sessions that have ended with their tokens, and audit entries past their retention', async () => {
    const [account, ended, expired] = [await newAccount(), await newAccount(), await newAccount()];
    await refresh(ended.refreshToken);
    await api.withToken(ended.accessToken).post('/api/v1/auth/logout', undefined);
    await database.query('UPDATE auth_sessions SET expires_at = now() WHERE user_id = $1', [expired.user.id]);
    await database.query(
      `INSERT INTO audit_log (action, at) VALUES ('login.failed', now() - interval '101 days'), ('login.failed', now() - interval '99 days')`,
    );
    const keeper = await startBackend({
      database,
      env: { HOUSEKEEPING_INTERVAL_MS: '50', AUDIT_RETENTION_DAYS: '100' },
    });
    try {
      const left = `SELECT FROM auth_sessions WHERE user_id IN ($1, $2)`;
      await until(
        async () => (await database.query(left, [ended.user.id, expired.user.id])).length === 0,
        'the sessions are forgotten',
        KEEPER_MS,
      );
      await until(
        async () => (await database.query(`SELECT FROM audit_log WHERE at < now() - interval '100 days'`)).length === 0,
        'the entry is forgotten',
        KEEPER_MS,
      );
      expect(await database.query(`SELECT FROM audit_log WHERE at < now() - interval '98 days'`)).toHaveLength(1);
      expect((await me(account.accessToken)).status).toBe(200);
    } finally {
      await keeper.stop();
    }
  });
});
