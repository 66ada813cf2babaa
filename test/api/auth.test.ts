import { createHmac, randomUUID } from 'node:crypto';

import jwt from 'jsonwebtoken';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { type Backend, SECRETS, startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';

const PASSWORD = 'correct horse battery';

let database: TestDatabase;
let backend: Backend;
let api: Api;

beforeAll(async () => {
  database = await createDatabase();
  backend = await startBackend({ database, env: { ADMIN_EMAIL: 'Admin@example.com', ADMIN_PASSWORD: PASSWORD } });
  api = new Api(backend.url);
});

afterAll(async () => {
  await backend?.stop();
  await database?.drop();
});

const signup = (email: string) => api.post('/api/v1/auth/signup', { email, password: PASSWORD });
const refresh = (refreshToken: string) => api.post('/api/v1/auth/refresh', { refreshToken });
const me = (token: string) => api.withToken(token).get('/api/v1/auth/me');

describe('signing up and in', () => {
  it('gives a login that works until logout, and not a moment longer', async () => {
    const account = await signup('ada@example.com');
    expect(account).toMatchObject({
      status: 201,
      body: { expiresIn: 900, user: { email: 'ada@example.com', role: 'user', plan: 'free' } },
    });
    expect(account.headers.get('cache-control')).toBe('no-store');
    const { accessToken, refreshToken } = account.body;

    expect(await me(accessToken)).toMatchObject({ status: 200, body: { email: 'ada@example.com' } });
    expect((await api.withToken(accessToken).post('/api/v1/auth/logout', undefined)).status).toBe(204);
    expect(await me(accessToken)).toMatchObject({ status: 401, body: { code: 'UNAUTHENTICATED' } });
    expect(await refresh(refreshToken)).toMatchObject({ status: 401, body: { code: 'INVALID_REFRESH_TOKEN' } });
    expect((await api.post('/api/v1/auth/login', { email: ' ADA@example.com', password: PASSWORD })).status).toBe(200);
  });

  it('makes one account of 20 concurrent sign-ups with one e-mail', async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) => signup(i % 2 ? 'race@example.com' : 'RACE@example.com')),
    );
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(1);
    expect(answers.filter(({ status, body }) => status === 409 && body.code === 'EMAIL_TAKEN')).toHaveLength(19);
  });

  it('answers an unknown e-mail like a wrong password', async () => {
    await signup('known@example.com');
    const login = (email: string) => api.post('/api/v1/auth/login', { email, password: 'wrong' });
    const [known, unknown] = [await login('known@example.com'), await login('unknown@example.com')];
    expect(known.status).toBe(401);
    expect({ ...unknown.body, requestId: '' }).toEqual({ ...known.body, requestId: '' });
  });

  it('sees the whole password: 72 bytes and more are not cut', async () => {
    const password = 'a whole long line'.repeat(6);
    await api.post('/api/v1/auth/signup', { email: 'long@example.com', password });
    expect(
      (await api.post('/api/v1/auth/login', { email: 'long@example.com', password: `${password.slice(0, -1)}y` }))
        .status,
    ).toBe(401);
    expect((await api.post('/api/v1/auth/login', { email: 'long@example.com', password })).status).toBe(200);
  });

  it('sheds hashing work it cannot do soon, and works on', async () => {
    const answers = await Promise.all(
      Array.from({ length: 150 }, () =>
        api.post('/api/v1/auth/login', { email: 'nobody@example.com', password: 'wrong' }),
      ),
    );
    const shed = answers.filter(({ status }) => status === 503);
    expect(shed.length).toBeGreaterThan(0);
    expect(shed[0]?.headers.get('retry-after')).toBe('1');
    expect(answers.filter(({ status }) => status === 401).length + shed.length).toBe(150);
    expect((await signup('after-the-storm@example.com')).status).toBe(201);
  });
});

describe('e-mails', () => {
  it.each([
    ['the Kelvin sign, which lower-cases to k', '\u212Aate@example.com'],
    ['a capital I with a dot, which lower-cases to two', '\u0130da@example.com'],
    ['a long s', 'pas\u017F@example.com'],
    ['full-width letters', '\uFF41\uFF44\uFF41@example.com'],
    ['a Cyrillic letter that looks like one of ours', '\u0430da@example.com'],
    ['a domain with an umlaut', 'ada@ex\u00E4mple.com'],
    ['a character that is not to be seen', 'a\u200Bda@example.com'],
    ['half of a character', 'a\uD800da@example.com'],
    ['a zero', 'a\0da@example.com'],
    ['a line break', 'ada@example.com\nb@example.com'],
    ['two signs', 'ada@b@example.com'],
    ['255 characters', `${'a'.repeat(243)}@example.com`],
  ])('are plain ASCII: not with %s', async (_, email) => {
    for (const route of ['signup', 'login']) {
      const answer = await api.post(`/api/v1/auth/${route}`, { email, password: PASSWORD });
      expect(answer, route).toMatchObject({ status: 400, body: { code: 'VALIDATION_FAILED' } });
      expect(answer.body.errors[0].path).toBe('email');
    }
  });

  it('are the same with spaces around them and in capitals, and the database agrees', async () => {
    expect((await signup('  MiXed.Case+Tag@EXAMPLE.com\u00A0')).body.user.email).toBe('mixed.case+tag@example.com');
    expect((await signup('mixed.case+tag@example.com')).status).toBe(409);
  });
});

describe('names', () => {
  const named = (name: string) =>
    api.post('/api/v1/auth/signup', { email: `${randomUUID()}@example.com`, password: PASSWORD, name });

  it.each([
    '\u202Eabc',
    'a\u2066b',
    'a\u200Bb',
    'a\u200Db',
    'a\uD83Db',
    'a\0b',
    'a\nb',
    'a\u2028b',
    '\u3164',
    'a\u034Fb',
    'a\uFE01b',
    '\u{E0041}',
    ' ',
  ])('that hide or turn something are refused: %j', async (name) => {
    expect(await named(name)).toMatchObject({
      status: 400,
      body: { code: 'VALIDATION_FAILED', errors: [{ path: 'name' }] },
    });
  });

  it.each([
    'Zo\u00EB \u00C5ngstr\u00F6m',
    '\u674E\u96F7',
    'O\u2019Brien',
    '\u0645\u0631\u064A\u0645',
    '\u{1F680} team',
  ])('of people are taken as they are: %s', async (name) => {
    expect(await named(name)).toMatchObject({ status: 201, body: { user: { name } } });
  });

  it('have one spelling for one look', async () => {
    expect((await named('Zoe\u0308')).body.user.name).toBe('Zo\u00EB');
  });
});

describe('refreshing', () => {
  it('lets exactly one of ten parallel refreshes through, and keeps its session', async () => {
    const { refreshToken } = (await signup('rotate@example.com')).body;
    const answers = await Promise.all(Array.from({ length: 10 }, () => refresh(refreshToken)));
    const winners = answers.filter(({ status }) => status === 200);
    expect(winners).toHaveLength(1);
    expect((await me(winners[0]?.body.accessToken)).status).toBe(200);
    expect((await refresh(winners[0]?.body.refreshToken)).status).toBe(200);
  });

  it('ends the whole session when a token is reused long after it was spent', async () => {
    const { refreshToken } = (await signup('stolen@example.com')).body;
    const second = (await refresh(refreshToken)).body;
    await database.query(
      `UPDATE refresh_tokens SET spent_at = spent_at - interval '1 minute' WHERE spent_at IS NOT NULL`,
    );
    expect((await refresh(refreshToken)).status).toBe(401);
    expect((await me(second.accessToken)).status).toBe(401);
    expect((await refresh(second.refreshToken)).status).toBe(401);
  });
});

describe('what is stored', () => {
  it('is an argon2id hash of the password and a hash of the refresh token (G7)', async () => {
    const { refreshToken } = (await signup('stored@example.com')).body;
    const [user] = await database.query(`SELECT password_hash FROM users WHERE email = 'stored@example.com'`);
    expect(user?.password_hash).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
    const dump = JSON.stringify(await database.query(`SELECT encode(hash, 'escape') AS hash FROM refresh_tokens`));
    expect(dump).not.toContain(refreshToken);
    expect(backend.output()).not.toContain(refreshToken);
    expect(backend.output()).not.toContain(PASSWORD);
  });
});

describe('forged access tokens', () => {
  const checks = {
    algorithm: 'HS256',
    issuer: 'bore-platform',
    audience: 'bore-platform-api',
    expiresIn: 60,
    header: { alg: 'HS256', typ: 'at+jwt' },
  } as const;
  const base64 = (json: unknown) => Buffer.from(JSON.stringify(json)).toString('base64url');

  it('are refused, each for its own reason, while the same token made right is not', async () => {
    const { accessToken, refreshToken, user } = (await signup('forge@example.com')).body;
    const { sid } = jwt.decode(accessToken, { json: true }) ?? {};
    const sign = (options: object, key = SECRETS.JWT_SECRET, claims: object = { sid }) =>
      jwt.sign(claims, key, { ...checks, subject: user.id, ...options });
    const [header, payload, signature] = accessToken.split('.');
    const none = `${base64({ alg: 'none', typ: 'JWT' })}.${payload}.`;

    expect((await me(sign({}))).status).toBe(200);
    const forged = {
      'alg none': none,
      'alg None': none.replace(base64({ alg: 'none', typ: 'JWT' }), base64({ alg: 'None', typ: 'JWT' })),
      'another key': sign({}, 'x'.repeat(40)),
      'another algorithm with our key': sign({ algorithm: 'HS512', header: { alg: 'HS512', typ: 'at+jwt' } }),
      'another type': sign({ header: { alg: 'HS256', typ: 'JWT' } }),
      'no type': sign({ header: { alg: 'HS256', typ: undefined } }),
      'another issuer': sign({ issuer: 'elsewhere' }),
      'another audience': sign({ audience: 'elsewhere' }),
      expired: sign({ expiresIn: -1 }),
      'not valid yet': sign({ notBefore: 600 }),
      'no session': sign({}, SECRETS.JWT_SECRET, {}),
      'another session': sign({}, SECRETS.JWT_SECRET, { sid: user.id }),
      'somebody else’s session': sign({ subject: '00000000-0000-4000-8000-000000000000' }),
      'session that is no UUID': sign({}, SECRETS.JWT_SECRET, { sid: "' OR 1=1 --" }),
      'payload changed': `${header}.${base64({ sid, sub: user.id, role: 'admin' })}.${signature}`,
      'header names its own key': `${base64({ alg: 'HS256', jwk: { kty: 'oct', k: 'AA' } })}.${payload}.${createHmac('sha256', '\0').update('x').digest('base64url')}`,
      'a refresh token': refreshToken,
      'no token': 'x',
      'a huge one': 'a'.repeat(10_000),
    };
    for (const [name, token] of Object.entries(forged)) {
      expect(await me(token), name).toMatchObject({ status: 401, body: { code: 'UNAUTHENTICATED' } });
    }
    expect((await api.get('/api/v1/auth/me')).headers.get('www-authenticate')).toBe('Bearer');
  });
});

describe('the first administrator', () => {
  it('is made from the environment', async () => {
    const login = await api.post('/api/v1/auth/login', { email: 'admin@example.com', password: PASSWORD });
    expect(login).toMatchObject({ status: 200, body: { user: { role: 'admin' } } });
  });

  it('is never an account that was there before, and never changes its password', async () => {
    await signup('squatter@example.com');
    const second = await startBackend({
      database,
      env: { ADMIN_EMAIL: 'squatter@example.com', ADMIN_PASSWORD: 'another password' },
    });
    try {
      const login = await new Api(second.url).post('/api/v1/auth/login', {
        email: 'squatter@example.com',
        password: PASSWORD,
      });
      expect(login).toMatchObject({ status: 200, body: { user: { role: 'user', plan: 'free' } } });
      expect(second.output()).toContain('belongs to an ordinary account');
    } finally {
      await second.stop();
    }
  });

  it('cannot be had by asking', async () => {
    const answer = await api.post('/api/v1/auth/signup', {
      email: 'mass@example.com',
      password: PASSWORD,
      role: 'admin',
    });
    expect(answer).toMatchObject({ status: 400, body: { code: 'VALIDATION_FAILED' } });
  });
});
