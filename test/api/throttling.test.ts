/** Limits by address, by user and by account, as one process keeps them; test/api/redis-limits.test.ts has them shared. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { type Answer, Api } from '../harness/api.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';

const PASSWORD = 'correct horse battery';
const VICTIM = 'victim@example.com';

/** The defaults, where a suite otherwise has none; callers name their address as a load balancer would. */
const DEFAULTS = {
  RATE_LIMIT_PER_MINUTE: '300',
  RATE_LIMIT_LOGINS_PER_MINUTE: '30',
  RATE_LIMIT_SIGNUPS_PER_HOUR: '20',
  LOGIN_FAILURES_PER_MINUTE: '5',
  TRUST_PROXY: '127.0.0.1',
};

let database: TestDatabase;
let backend: Backend | undefined;

beforeAll(async () => {
  database = await createDatabase();
});

afterAll(() => database?.drop());

/** A process that has counted nothing yet. */
async function start(env: NodeJS.ProcessEnv = {}): Promise<void> {
  await backend?.stop();
  backend = await startBackend({ database, env: { ...DEFAULTS, ...env } });
}

afterAll(() => backend?.stop());

const from = (address: string) => new Api(backend?.url ?? '', { 'x-forwarded-for': address });
const login = (address: string, email = VICTIM, password = PASSWORD) =>
  from(address).post('/api/v1/auth/login', { email, password });
const signup = (address: string, email: string) =>
  from(address).post('/api/v1/auth/signup', { email, password: PASSWORD });
const guess = (address: string, email = VICTIM) => login(address, email, 'wrong');

/** How many answers had each status. */
function statuses(answers: readonly Answer[]): Record<number, number> {
  const counts: Record<number, number> = {};
  for (const { status } of answers) counts[status] = (counts[status] ?? 0) + 1;
  return counts;
}

/** The parts of a header such as `"login";q=30;w=60`. */
function itemsOf(answer: Answer, header: string): Record<string, Record<string, number>> {
  const items = (answer.headers.get(header) ?? '').split(', ').filter(Boolean);
  return Object.fromEntries(
    items.map((item) => {
      const [, name = '', parameters = ''] = /^"([a-z]+)"((?:;[a-z]=\d+)+)$/.exec(item) ?? [];
      const pairs = parameters.split(';').filter(Boolean);
      return [name, Object.fromEntries(pairs.map((pair) => [pair[0] ?? '', Number(pair.slice(2))]))];
    }),
  );
}

describe('guessing the password of an account', { timeout: 120_000 }, () => {
  beforeEach(async () => {
    await start({ RATE_LIMIT_LOGINS_PER_MINUTE: '100000', RATE_LIMIT_PER_MINUTE: '100000' });
    await signup('192.0.2.1', VICTIM);
  });

  it('1,000 times from one address is refused after a few; the owner logs in from elsewhere', async () => {
    const answers: Answer[] = [];
    for (let i = 0; i < 1_000; i += 20) {
      answers.push(...(await Promise.all(Array.from({ length: 20 }, () => guess('198.51.100.1')))));
    }
    // five; and five more where a slow machine takes longer than a minute, and then none for a quarter of an hour
    const { 401: wrong = 0, ...others } = statuses(answers);
    expect([5, 10]).toContain(wrong);
    expect(others).toEqual({ 429: 1_000 - wrong });
    expect((await login('192.0.2.1')).status).toBe(200);
    // not even with the right password, or the answer would tell that it is
    expect(await login('198.51.100.1')).toMatchObject({ status: 429, body: { code: 'TOO_MANY_REQUESTS' } });
  });

  it('as the current password of a change counts with the others, however the guesser is logged in', async () => {
    const { body } = await login('192.0.2.1');
    const guesser = from('198.51.100.1').withToken(body.accessToken);
    const change = () =>
      guesser.post('/api/v1/auth/password', { currentPassword: 'a wrong one', newPassword: 'staple of another horse' });
    const answers = await Promise.all(Array.from({ length: 25 }, change));
    expect(statuses(answers)).toEqual({ 403: 5, 429: 20 });
    expect((await guess('198.51.100.1')).status).toBe(429);
  });

  it('in parallel is no better: the attempt is taken before the password is looked at', async () => {
    const answers = await Promise.all(Array.from({ length: 150 }, () => guess('198.51.100.1')));
    // no 503: so many passwords to hash would have been too many
    expect(statuses(answers)).toEqual({ 401: 5, 429: 145 });
  });

  it('from many addresses is refused after a hundred, and the owner gets in where they have been before', async () => {
    expect((await login('192.0.2.1')).status).toBe(200);
    const answers: Answer[] = [];
    for (let i = 0; i < 150; i++) answers.push(await guess(`198.51.100.${i}`));
    expect(statuses(answers)).toEqual({ 401: 100, 429: 50 });
    expect((await login('203.0.113.9')).status).toBe(429);
    expect((await login('192.0.2.1')).status).toBe(200);
  });

  it('from one IPv6 line is from one address', async () => {
    const answers: Answer[] = [];
    for (let i = 0; i < 10; i++) answers.push(await guess(`2001:db8:0:1::${i}`));
    expect(statuses(answers)).toEqual({ 401: 5, 429: 5 });
    expect((await guess('2001:db8:0:2::1')).status).toBe(401);
    expect((await guess('no address')).status).toBe(401);
  });

  it('is answered alike whether or not there is such an account', async () => {
    const about = async (email: string) => {
      const answers: Answer[] = [];
      for (let i = 0; i < 7; i++) answers.push(await guess('198.51.100.1', email));
      expect(answers.at(-1)?.body.retryAfter).toBeGreaterThan(30);
      return answers.map(({ status, body, headers }) => ({
        status,
        body: { ...body, requestId: '', retryAfter: 0 },
        headers: [...headers.keys()],
      }));
    };
    const [known, unknown] = await Promise.all([about(VICTIM), about('nobody@example.com')]);
    expect(known?.map(({ status }) => status)).toEqual([401, 401, 401, 401, 401, 429, 429]);
    expect(unknown).toEqual(known);
  });

  it('counts one mailbox once, however it is spelled, and begins anew after a login', async () => {
    for (let i = 0; i < 4; i++) await guess('192.0.2.7', i % 2 ? ' VICTIM@example.com' : VICTIM);
    expect((await login('192.0.2.7')).status).toBe(200);
    const answers: Answer[] = [];
    for (let i = 0; i < 6; i++) answers.push(await guess('192.0.2.7', 'Victim@Example.com'));
    expect(statuses(answers)).toEqual({ 401: 5, 429: 1 });
  });
});

describe('the limits by address', { timeout: 120_000 }, () => {
  beforeEach(() => start());

  it('are on sign-up, login and refresh, each for itself', async () => {
    const at = '198.51.100.1';
    const many = (count: number, call: (i: number) => Promise<Answer>) =>
      Promise.all(Array.from({ length: count }, (_, i) => call(i)));
    const logins = await many(35, (i) => login(at, `somebody${i}@example.com`));
    expect(statuses(logins)).toEqual({ 401: 30, 429: 5 });
    const refreshes = await many(35, () => from(at).post('/api/v1/auth/refresh', { refreshToken: 'x' }));
    expect(statuses(refreshes)).toEqual({ 401: 30, 429: 5 });
    const signups = await many(25, (i) => signup(at, `new${i}@example.com`));
    expect(statuses(signups)).toEqual({ 201: 20, 429: 5 });
    expect((await login('198.51.100.2', 'new0@example.com')).status).toBeLessThan(429);
  });

  it('refuse with a problem document that says when to come back', async () => {
    const answers: Answer[] = [];
    for (let i = 0; i < 31; i++) answers.push(await guess('198.51.100.1', `n${i}@example.com`));
    const last = answers.at(-1);
    expect(last).toMatchObject({ status: 429, body: { code: 'TOO_MANY_REQUESTS', status: 429 } });
    expect(last?.headers.get('content-type')).toContain('application/problem+json');
    const retryAfter = Number(last?.headers.get('retry-after'));
    expect(last?.body.retryAfter).toBe(retryAfter);
    expect(retryAfter).toBeGreaterThan(50);
    expect(retryAfter).toBeLessThanOrEqual(60);
  });

  it('tell with every answer what is left, and never less than nothing', async () => {
    const policies = { address: { q: 300, w: 60 }, login: { q: 30, w: 60 } };
    for (let i = 1; i <= 32; i++) {
      const answer = await guess('198.51.100.1', `n${i}@example.com`);
      expect(itemsOf(answer, 'ratelimit-policy')).toEqual(policies);
      const { address, login: rest } = itemsOf(answer, 'ratelimit');
      expect(address?.['r']).toBe(300 - i);
      expect(rest?.['r']).toBe(Math.max(0, 30 - i));
      expect(rest?.['t']).toBeGreaterThan(0);
      expect(rest?.['t']).toBeLessThanOrEqual(60);
    }
  });
});

describe('pages of allowed origins', () => {
  it('may read what is left of a limit, and when to come back', async () => {
    const origin = 'https://app.example.com';
    await start({ ALLOWED_ORIGINS: origin });
    const { headers } = await from('198.51.100.1').send('GET', '/api/v1/auth/me', undefined, { origin });
    expect(headers.get('ratelimit')).toMatch(/^"address";r=\d+;t=\d+$/);
    const exposed = headers.get('access-control-expose-headers')?.split(', ');
    expect(exposed).toEqual(expect.arrayContaining(['retry-after', 'x-request-id', 'ratelimit', 'ratelimit-policy']));
  });
});

describe('the limit of the whole API', { timeout: 120_000 }, () => {
  it('is by user for who is logged in, so that an office behind one address is many callers', async () => {
    await start({ RATE_LIMIT_PER_MINUTE: '20' });
    const office = '198.51.100.1';
    const tokens = await Promise.all(
      ['ann', 'bob', 'eve'].map(async (name) => (await signup(office, `${name}@example.com`)).body.accessToken),
    );
    const me = (token: string, address = office) => from(address).withToken(token).get('/api/v1/auth/me');
    for (const token of tokens) {
      const answers = await Promise.all(Array.from({ length: 20 }, () => me(token)));
      expect(statuses(answers)).toEqual({ 200: 20 });
    }
    const refused = await me(tokens[2], '203.0.113.7');
    expect(refused.status).toBe(429);
    expect(itemsOf(refused, 'ratelimit')).toMatchObject({ office: { r: 199 }, user: { r: 0 } });
  });

  it('does not let false logins through for ever, nor strangers; and never holds up planes, health checks and metrics', async () => {
    await start({ RATE_LIMIT_PER_MINUTE: '5' });
    const address = from('198.51.100.1');
    const call = (path: string, count: number, api = address) =>
      Promise.all(Array.from({ length: count }, () => api.get(path)));
    expect(statuses(await call('/api/v1/auth/me', 60, address.withToken('x')))).toEqual({ 401: 50, 429: 10 });
    expect(statuses(await call('/api/v1/auth/me', 8))).toEqual({ 401: 5, 429: 3 });
    expect(statuses(await call('/health', 20))).toEqual({ 200: 20 });
    // which are for nobody behind a proxy
    expect(statuses(await call('/metrics', 20, new Api(backend?.url ?? '')))).toEqual({ 200: 20 });
    const registrations = Array.from({ length: 20 }, () => address.post('/api/v1/internal/servers/register', {}));
    expect(statuses(await Promise.all(registrations))).toEqual({ 401: 20 });
  });

  it('counts the description of the API and its page with the rest', async () => {
    await start({ RATE_LIMIT_PER_MINUTE: '6' });
    const reader = from('203.0.113.77');
    for (const path of ['/api/docs', '/api/openapi.json', '/api/openapi.yaml', '/api/docs/swagger-ui.css'])
      expect((await reader.get(path)).status).toBe(200);
    expect((await reader.get('/api/v1/auth/me')).status).toBe(401);
    expect((await reader.get('/api/openapi.json')).status).toBe(200);
    for (const path of ['/api/docs', '/api/openapi.json', '/api/docs/swagger-ui.css', '/api/v1/auth/me']) {
      const refused = await reader.get(path);
      expect(refused).toMatchObject({ status: 429, body: { code: 'TOO_MANY_REQUESTS' } });
      expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    }
    expect((await from('203.0.113.78').get('/api/docs')).status).toBe(200);
  });
});
