import { randomUUID } from 'node:crypto';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { startBackend } from '../harness/backend.js';
import type { TestDatabase } from '../harness/database.js';
import { inTransaction, somebodyWaits } from './transaction.js';
import { ControlPlane } from './control-plane.js';

const PASSWORD = 'correct horse battery';
const NEXT = 'staple of another horse';
/** With a ligature, and letters whose accents stand behind them. */
const DECOMPOSED = '\uFB01ve Pa\u0308sse u\u0308ber A\u030Angermanland';
const COMPOSED = DECOMPOSED.normalize('NFKC');

let plane: ControlPlane;
let database: TestDatabase;
let api: Api;
let other: Api;

beforeAll(async () => {
  plane = await ControlPlane.start({ backends: 2, env: { ADMIN_PASSWORD: DECOMPOSED } });
  database = plane.database;
  api = new Api(plane.url(0));
  other = new Api(plane.url(1));
});

afterAll(() => plane?.stop());

const newEmail = () => `${randomUUID()}@example.com`;
const signup = (password: string, email = newEmail()) => api.post('/api/v1/auth/signup', { email, password });
const login = (email: string, password: string, at = api) => at.post('/api/v1/auth/login', { email, password });
const change = (token: string, currentPassword: string, newPassword: string, at = api) =>
  at.withToken(token).post('/api/v1/auth/password', { currentPassword, newPassword });
const me = (token: string, at = api) => at.withToken(token).get('/api/v1/auth/me');
const audited = (userId: string, action: string) =>
  database.query('SELECT actor_id, target_id, details FROM audit_log WHERE user_id = $1 AND action = $2', [
    userId,
    action,
  ]);

describe('a new password', () => {
  it('has 12 to 128 characters, and a character is one however it is encoded', async () => {
    const han = Array.from({ length: 128 }, (_, i) => String.fromCodePoint(0xac01 + i)).join('');
    const emoji = Array.from({ length: 12 }, (_, i) => String.fromCodePoint(0x1f600 + i)).join('');
    for (const password of ['twelve chars', emoji, han, han.normalize('NFD')]) {
      expect((await signup(password)).status, password).toBe(201);
    }
    for (const password of ['only eleven', emoji.slice(2), `${han}x`, 'x'.repeat(5_000), '']) {
      const refused = await signup(password);
      expect(refused, password).toMatchObject({ status: 400, body: { code: 'VALIDATION_FAILED' } });
      expect(refused.body.errors[0].path).toBe('password');
    }
  });

  it.each([
    ['is on the list', 'qwertyuiop12'],
    ['is on the list, in capitals', 'QWERTYUIOP12'],
    ['is on the list, in full width', 'ｑｗｅｒｔｙｕｉｏｐ１２'],
    ['is on the list, but for its ends', 'PASSWORD-2026!'],
    ['is one letter', 'aaaaaaaaaaaaaaaa'],
    ['is a few digits again and again', '123412341234'],
  ])('that %s is refused, when signing up and when changing it', async (_, weak) => {
    expect(await signup(weak)).toMatchObject({
      status: 400,
      body: {
        code: 'VALIDATION_FAILED',
        errors: [{ path: 'password', message: expect.stringMatching(/choose another/) }],
      },
    });
    const { accessToken } = (await signup(PASSWORD)).body;
    expect(await change(accessToken, PASSWORD, weak)).toMatchObject({
      status: 400,
      body: {
        code: 'VALIDATION_FAILED',
        errors: [{ path: 'newPassword', message: expect.stringMatching(/choose another/) }],
      },
    });
  });

  it('that holds the e-mail address is refused', async () => {
    const email = newEmail();
    for (const password of [email, `my ${email.toUpperCase()} password`]) {
      expect(await signup(password, email)).toMatchObject({
        status: 400,
        body: { errors: [{ path: 'password', message: 'must not hold the e-mail address' }] },
      });
    }
    expect((await signup(email)).status).toBe(201);
  });

  it.each(['correct horse battery', 'all lower case and no digit', '83749 2018 3746', '  spaces at both ends  '])(
    'needs no kinds of characters: %s',
    async (password) => {
      const email = newEmail();
      expect((await signup(password, email)).status).toBe(201);
      expect((await login(email, password)).status).toBe(200);
      expect((await login(email, password.slice(0, -1))).status).toBe(401);
    },
  );

  it('is the same in every form that Unicode has for it, wherever it is typed', async () => {
    expect(COMPOSED).not.toBe(DECOMPOSED);
    const email = newEmail();
    const { accessToken } = (await signup(DECOMPOSED, email)).body;
    expect((await login(email, COMPOSED)).status).toBe(200);
    expect((await login(email, DECOMPOSED)).status).toBe(200);
    expect((await change(accessToken, COMPOSED, `${COMPOSED} 2`)).status).toBe(204);
    expect((await login(email, `${DECOMPOSED} 2`)).status).toBe(200);
    expect((await login('admin@example.com', COMPOSED)).status).toBe(200);
  });

  it('is whole characters: halves of them would all be the same', async () => {
    const halves = ['\uD83D tail of a password', 'head of a password \uDE00'];
    const { accessToken } = (await signup(PASSWORD)).body;
    for (const half of halves) {
      expect((await signup(half)).status).toBe(400);
      expect((await login('admin@example.com', half)).status).toBe(400);
      expect((await change(accessToken, half, NEXT)).status).toBe(400);
      expect((await change(accessToken, PASSWORD, half)).status).toBe(400);
    }
  });

  it('of the first administrator keeps to the same rules, or the start ends', async () => {
    const env = { ADMIN_EMAIL: 'second@example.com', ADMIN_PASSWORD: 'password1234' };
    const failed = await startBackend({ database, env, expectFailure: true });
    expect(await failed.exitCode()).toBe(1);
    expect(failed.output()).toContain('ADMIN_PASSWORD is one of the passwords that are tried first');
    expect(failed.output()).not.toContain('password1234');
    expect(await database.query(`SELECT FROM users WHERE email = 'second@example.com'`)).toEqual([]);
  });
});

describe('a change of the password', () => {
  it('ends all other sessions at every backend, keeps this one and API keys, and is in the log', async () => {
    const email = newEmail();
    const { accessToken, refreshToken, user } = (await signup(PASSWORD, email)).body;
    const others = [(await login(email, PASSWORD)).body, (await login(email, PASSWORD, other)).body];
    const mine = api.withToken(accessToken);
    const { key } = (await mine.post('/api/v1/auth/api-keys', { name: 'ci', scopes: ['tunnels:read'] })).body;

    expect(await change(accessToken, PASSWORD, NEXT, other)).toMatchObject({ status: 204, text: '' });
    for (const session of others) {
      expect((await me(session.accessToken, other)).status).toBe(401);
      expect((await api.post('/api/v1/auth/refresh', { refreshToken: session.refreshToken })).status).toBe(401);
    }
    expect((await me(accessToken)).status).toBe(200);
    expect((await api.post('/api/v1/auth/refresh', { refreshToken })).status).toBe(200);
    expect((await api.withToken(key).get('/api/v1/tunnels')).status).toBe(200);
    expect(await login(email, PASSWORD)).toMatchObject({ status: 401, body: { code: 'INVALID_CREDENTIALS' } });
    expect((await login(email, NEXT)).status).toBe(200);
    expect(await audited(user.id, 'password.changed')).toEqual([
      { actor_id: user.id, target_id: user.id, details: { sessionsEnded: 2 } },
    ]);
    for (const backend of plane.backends) expect(backend.output()).not.toContain(NEXT);
  });

  it('needs the current one, and a login', async () => {
    const email = newEmail();
    const { accessToken, user } = (await signup(PASSWORD, email)).body;
    const mine = api.withToken(accessToken);
    expect(await change(accessToken, 'a wrong password', NEXT)).toMatchObject({
      status: 403,
      body: { code: 'CURRENT_PASSWORD_WRONG' },
    });
    expect(await audited(user.id, 'login.failed')).toEqual([{ actor_id: user.id, target_id: user.id, details: {} }]);
    expect((await mine.post('/api/v1/auth/password', { newPassword: NEXT })).status).toBe(400);
    expect((await api.post('/api/v1/auth/password', { currentPassword: PASSWORD, newPassword: NEXT })).status).toBe(
      401,
    );
    const { key } = (await mine.post('/api/v1/auth/api-keys', { name: 'ci', scopes: ['tunnels:write'] })).body;
    expect(await change(key, PASSWORD, NEXT)).toMatchObject({ status: 403, body: { code: 'LOGIN_REQUIRED' } });
    expect((await login(email, PASSWORD)).status).toBe(200);
  });

  it('is one of eight with the same current password, at two backends', async () => {
    const email = newEmail();
    const { accessToken, user } = (await signup(PASSWORD, email)).body;
    const wanted = Array.from({ length: 8 }, (_, i) => `${NEXT} ${i}`);
    const answers = await Promise.all(
      wanted.map((password, i) => change(accessToken, PASSWORD, password, i % 2 ? api : other)),
    );
    expect(answers.filter(({ status }) => status === 204)).toHaveLength(1);
    expect(answers.filter(({ body }) => body?.code === 'CURRENT_PASSWORD_WRONG')).toHaveLength(7);
    const winner = answers.findIndex(({ status }) => status === 204);
    for (const [i, password] of wanted.entries()) {
      expect((await login(email, password)).status).toBe(i === winner ? 200 : 401);
    }
    expect(await audited(user.id, 'password.changed')).toHaveLength(1);
  });

  it('is not undone by a login that checked the old one just before', async () => {
    const email = newEmail();
    await signup(PASSWORD, email);
    let late: ReturnType<typeof login> | undefined;
    await inTransaction(database, async (client) => {
      await client.query(
        `UPDATE users SET password_hash = (SELECT password_hash FROM users WHERE email = 'admin@example.com') WHERE email = $1`,
        [email],
      );
      late = login(email, PASSWORD);
      await somebodyWaits(database);
      await client.query('COMMIT');
    });
    expect(await late).toMatchObject({ status: 401, body: { code: 'INVALID_CREDENTIALS' } });
  });

  it('ends a login that began while it waited', async () => {
    const email = newEmail();
    const { accessToken } = (await signup(PASSWORD, email)).body;
    let both: Promise<[Awaited<ReturnType<typeof login>>, Awaited<ReturnType<typeof change>>]> | undefined;
    await inTransaction(database, async (client) => {
      await client.query('SELECT FROM users WHERE email = $1 FOR UPDATE', [email]);
      const late = login(email, PASSWORD, other);
      await somebodyWaits(database);
      both = Promise.all([late, change(accessToken, PASSWORD, NEXT)]);
      await somebodyWaits(database, 2);
    });
    const [late, changed] = (await both) ?? [];
    expect(changed?.status).toBe(204);
    expect(late?.status).toBe(200);
    expect((await me(late?.body.accessToken)).status).toBe(401);
  });
});

describe('the time that a login takes', () => {
  it('says nothing about whether the account exists', async () => {
    const email = newEmail();
    await signup(PASSWORD, email);
    const timed = async (address: string) => {
      const began = performance.now();
      expect((await login(address, 'a wrong password')).status).toBe(401);
      return performance.now() - began;
    };
    // one right after the other: what else the machine does slows both
    const ratios: number[] = [];
    for (let i = 0; i < 40; i++) {
      const known = await timed(email);
      ratios.push((await timed(newEmail())) / known);
    }
    const ratio = ratios.toSorted((a, b) => a - b)[ratios.length / 2];
    // without the same work it is a tenth
    expect(ratio).toBeGreaterThan(0.67);
    expect(ratio).toBeLessThan(1.5);
  });
});
