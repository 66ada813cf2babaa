import { randomBytes, randomUUID } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { apiKeyOf } from '../../src/auth/api-key.js';
import { ApiKeyScope } from '../../src/platform/http/api-key-scope.js';
import { ERROR_REGISTER } from '../../src/platform/errors/error-register.js';
import { Api } from '../harness/api.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';

const README = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
const CONFIG_SOURCE = readFileSync(new URL('../../src/platform/config/config.ts', import.meta.url), 'utf8');

let database: TestDatabase;
let backend: Backend;
let api: Api;

beforeAll(async () => {
  database = await createDatabase();
  backend = await startBackend({ database });
  api = new Api(backend.url);
});

afterAll(async () => {
  await backend?.stop();
  await database?.drop();
});

describe('the README', () => {
  it('lists the register of errors, no code more and no code less', () => {
    const documented = [...README.matchAll(/^\| `([A-Z_]+)`\s+\| (\d{3})\s+\| (.+?)\s+\|$/gm)].map(
      ([, code, status, title]) => ({ code, status: Number(status), title }),
    );
    expect(documented).toEqual(
      Object.entries(ERROR_REGISTER).map(([code, { status, title }]) => ({ code, status, title })),
    );
  });

  it('lists every variable of the environment', () => {
    const read = [...CONFIG_SOURCE.matchAll(/^ {2}([A-Z][A-Z_]+):/gm)].map(([, name]) => name);
    expect(read.length).toBeGreaterThan(25);
    const table = README.slice(README.indexOf('## Configuration of the backend'), README.indexOf('## bore-server'));
    const documented = [...table.matchAll(/`([A-Z][A-Z_]+)`/g)].map(([, name]) => name);
    expect(new Set(documented)).toEqual(new Set(read));
  });
});

describe('docs/accounts.md', () => {
  const text = readFileSync(new URL('../../docs/accounts.md', import.meta.url), 'utf8');

  it('gives leak scanners a pattern that finds a key, and no part of one', () => {
    const [, pattern = ''] = /```\n(bk_\S+)\n```/.exec(text) ?? [];
    const { key } = apiKeyOf(randomUUID(), randomBytes(32));
    expect(new RegExp(pattern).exec(`token = "${key}"`)?.[0]).toBe(key);
    expect(key.slice(0, -1)).not.toMatch(new RegExp(pattern));
  });

  it('lists the scopes of keys', () => {
    expect([...text.matchAll(/^\| `([a-z]+:[a-z]+)`/gm)].map(([, scope]) => scope)).toEqual(ApiKeyScope.options);
  });
});

describe('docs/security.md', () => {
  it('names tests that exist', () => {
    const text = readFileSync(new URL('../../docs/security.md', import.meta.url), 'utf8');
    const named = new Set([...text.matchAll(/`(test\/[\w/.-]+\.ts)`/g)].map(([, file = '']) => file));
    expect(named.size).toBeGreaterThan(20);
    for (const file of named) expect(existsSync(new URL(`../../${file}`, import.meta.url)), file).toBe(true);
  });
});

describe('metrics', () => {
  const metric = async (line: RegExp) =>
    (await api.get('/metrics')).text.split('\n').find((candidate) => line.test(candidate));

  it('count requests by route, and bound what a caller can put into a label', async () => {
    for (let i = 0; i < 50; i++) await api.get(`/nowhere/${i}`);
    expect(await metric(/^http_requests_total\{method="GET",route="unmatched",status="404"\}/)).toMatch(/ 50$/);
    expect((await api.get('/metrics')).text).not.toContain('nowhere');
    expect(await metric(/^http_request_duration_seconds_count\{method="GET",route="unmatched"\}/)).toMatch(/ 50$/);
  });
});

describe('health', () => {
  it('says ready while the database answers; live looks at nothing else', async () => {
    expect(await api.get('/health')).toMatchObject({
      status: 200,
      body: { status: 'ok', details: { database: { status: 'up' } } },
    });
    expect((await api.get('/health/ready')).status).toBe(200);
    expect((await api.get('/health/live')).body).toMatchObject({ status: 'ok', details: {} });
  });

  it('says no before it stops accepting, finishes what is under way, and exits 0', async () => {
    const draining = await startBackend({ database, env: { SHUTDOWN_DRAIN_SECONDS: '8' } });
    const client = new Api(draining.url);
    draining.signal('SIGTERM');
    await draining.waitFor('"msg":"draining"');
    const ready = await client.get('/health/ready');
    expect(ready).toMatchObject({ status: 503, body: { error: { lifecycle: { status: 'down' } } } });
    expect((await client.get('/health/live')).status).toBe(200);
    expect((await client.post('/api/v1/auth/login', { email: 'x@example.com', password: 'x' })).status).toBe(401);
    expect(await draining.exitCode()).toBe(0);
  });
});

describe('browsers', () => {
  it('of allowed origins may call every method and read what matters; others may not', async () => {
    const open = await startBackend({ database, env: { ALLOWED_ORIGINS: 'https://app.example.com' } });
    try {
      const preflight = (origin: string) =>
        new Api(open.url).send('OPTIONS', '/api/v1/tunnels/x', undefined, {
          origin,
          'access-control-request-method': 'DELETE',
        });
      const { headers } = await preflight('https://app.example.com');
      expect(headers.get('access-control-allow-origin')).toBe('https://app.example.com');
      expect(headers.get('access-control-allow-methods')).toContain('PATCH, DELETE');
      expect((await preflight('https://evil.example.com')).headers.get('access-control-allow-origin')).toBeNull();
    } finally {
      await open.stop();
    }
  });
});

describe('settings', () => {
  it.each([
    ['JWT_SECRET', 'short'],
    ['INTERNAL_API_KEY', '$(openssl rand -hex 32)-$(openssl rand -hex 32)'],
    ['TUNNEL_KEY_SECRET', 'CHANGE_ME_CHANGE_ME_CHANGE_ME_CHANGE_ME'],
    ['PORT', 'http'],
    ['REDIS_MODE', 'ring'],
    ['REDIS_NODES', 'redis-1,redis-2'],
    ['SERVER_LEASE_SECONDS', '6'],
    ['ALLOWED_ORIGINS', 'https://app.example.com/'],
    ['DB_PASSWORD', ''],
    ['ADMIN_EMAIL', 'admin@example.com'],
    ['ADMIN_PASSWORD', 'correct horse battery'],
    ['AUDIT_RETENTION_DAYS', '89'],
  ])('that are wrong end the start with a sentence that names them: %s', async (name, value) => {
    const failed = await startBackend({ database, env: { [name]: value }, expectFailure: true });
    expect(await failed.exitCode()).toBe(1);
    expect(failed.output()).toContain(name);
    if (value.length > 5) expect(failed.output()).not.toContain(value);
  });
});
