import net from 'node:net';
import { once } from 'node:events';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { type Answer, Api } from '../harness/api.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';

const PASSWORD = 'correct horse battery';

let database: TestDatabase;
let backend: Backend;
let api: Api;
let user: Api;

beforeAll(async () => {
  database = await createDatabase();
  backend = await startBackend({ database });
  api = new Api(backend.url);
  const { body } = await api.post('/api/v1/auth/signup', { email: 'user@example.com', password: PASSWORD });
  user = api.withToken(body.accessToken);
});

afterAll(async () => {
  await backend?.stop();
  await database?.drop();
});

function expectProblem(answer: Answer, status: number, code: string): void {
  expect(answer).toMatchObject({ status, body: { status, code, type: `urn:bore-platform:error:${code}` } });
  expect(answer.headers.get('content-type')).toContain('application/problem+json');
  expect(answer.body.requestId).toBe(answer.headers.get('x-request-id'));
}

const raw = (body: string, type = 'application/json') =>
  user.send('POST', '/api/v1/tunnels', body, { 'content-type': type });

describe('a request that is wrong', () => {
  it.each([
    ['an unknown field', { nope: 1 }],
    ['a port as text', { localPort: '8080' }],
    ['a port too high', { port: 65_536 }],
    ['a port of zero', { port: 0 }],
    ['a fraction', { port: 8080.5 }],
    ['a negative time', { ttlSeconds: -1 }],
    ['a number beyond the database', { ttlSeconds: 1e300 }],
    ['an upper-case name', { name: 'Web' }],
    ['a name with a path', { name: '../etc' }],
    ['markup', { name: '<img onerror=alert(1)>' }],
    ['a name with a NUL', { name: 'a\0b' }],
    ['an endless name', { name: 'a'.repeat(64) }],
    ['null', { name: null }],
    ['an array', []],
    ['a text', 'x'],
  ])('is refused with %s', async (_, body) => {
    expectProblem(await user.post('/api/v1/tunnels', body), 400, 'VALIDATION_FAILED');
  });

  it('says which field is wrong, and never repeats a value', async () => {
    const answer = await api.post('/api/v1/auth/signup', { email: 'no e-mail', password: 'short-secret' });
    expectProblem(answer, 400, 'VALIDATION_FAILED');
    expect(answer.body.errors.map(({ path }: { path: string }) => path)).toEqual(['email']);
    expect(JSON.stringify(answer.body)).not.toContain('short-secret');
  });

  it('is refused when it is no JSON, no known type, or too large', async () => {
    expectProblem(await raw('{"port":'), 400, 'MALFORMED_REQUEST');
    expectProblem(await raw(''), 400, 'MALFORMED_REQUEST');
    expectProblem(await raw('{"__proto__":{"port":1}}'), 400, 'MALFORMED_REQUEST');
    expectProblem(await raw('port=1', 'application/x-www-form-urlencoded'), 415, 'UNSUPPORTED_MEDIA_TYPE');
    expectProblem(await raw('<port/>', 'text/xml'), 415, 'UNSUPPORTED_MEDIA_TYPE');
    expectProblem(await raw(JSON.stringify({ name: 'a'.repeat(1_000_000) })), 413, 'PAYLOAD_TOO_LARGE');
    expectProblem(await raw(`${'['.repeat(30_000)}${']'.repeat(30_000)}`), 400, 'VALIDATION_FAILED');
  });

  it('is refused for ids that are none, and for routes and methods that are none', async () => {
    expectProblem(await user.get('/api/v1/tunnels/1'), 400, 'VALIDATION_FAILED');
    expectProblem(await user.get("/api/v1/tunnels/'; DROP TABLE users --"), 400, 'VALIDATION_FAILED');
    expectProblem(await user.get('/api/v1/tunnels/00000000-0000-4000-8000-000000000000'), 404, 'NOT_FOUND');
    expectProblem(await user.get('/api/v1/nothing'), 404, 'NOT_FOUND');
    expectProblem(
      await user.send('PUT', '/api/v1/tunnels', '{}', { 'content-type': 'application/json' }),
      405,
      'METHOD_NOT_ALLOWED',
    );
    expectProblem(await user.get('/api/v1/tunnels?limit=5&limit=6'), 400, 'VALIDATION_FAILED');
    expectProblem(await user.get('/api/v1/tunnels?unknown=1'), 400, 'VALIDATION_FAILED');
    expectProblem(await user.get('/%ff'), 400, 'MALFORMED_REQUEST');
  });

  it('cannot forge log lines: a request id and a name are data', async () => {
    const answer = await api.send('GET', '/health', undefined, { 'x-request-id': 'bad id "}' });
    expect(answer.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/);
    expect(
      (await api.send('GET', '/health', undefined, { 'x-request-id': 'from-a-proxy.1' })).headers.get('x-request-id'),
    ).toBe('from-a-proxy.1');
    const forged = await api.post('/api/v1/auth/signup', {
      email: 'log@example.com',
      password: PASSWORD,
      name: 'a\n{"level":"fatal"}',
    });
    expectProblem(forged, 400, 'VALIDATION_FAILED');
    for (const line of backend.output().trim().split('\n')) expect(() => JSON.parse(line)).not.toThrow();
  });
});

describe('a stranger at the internal API', () => {
  it.each([
    '/api/v1/internal/servers/s1/heartbeat',
    '/api/v1/%69nternal/servers/s1/heartbeat',
    'http://x/api/v1/internal/tunnels/authorize',
  ])('is refused before a byte of a body is read: %s', async (target) => {
    const socket = net.connect(Number(new URL(backend.url).port), '127.0.0.1');
    socket.on('error', () => undefined);
    const heads = 'host: x\r\ncontent-type: application/json\r\ncontent-length: 20000000\r\n\r\n';
    socket.write(`POST ${target} HTTP/1.1\r\n${heads}`);
    const [chunk]: unknown[] = await once(socket, 'data', { signal: AbortSignal.timeout(3_000) });
    expect(String(chunk)).toMatch(/^HTTP\/1\.1 401 [^]*"code":"INVALID_INTERNAL_KEY"/);
    await once(socket, 'close', { signal: AbortSignal.timeout(3_000) });
  });
});

describe('a connection that is slow', () => {
  it.each([
    ['headers', 'GET /health HTTP/1.1\r\nhost: x\r\n'],
    [
      'a body',
      'POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{',
    ],
  ])('with %s is closed, though it drips', async (_, start) => {
    const socket = net.connect(Number(new URL(backend.url).port), '127.0.0.1');
    socket.on('error', () => undefined); // a reset is one way to be closed
    socket.write(start);
    const drip = setInterval(() => socket.write('x'), 500);
    const began = performance.now();
    socket.resume();
    await once(socket, 'close');
    clearInterval(drip);
    // REQUEST_TIMEOUT_MS and CHECK_INTERVAL_MS in src/platform/http/http-server.ts
    expect(performance.now() - began).toBeLessThan(15_000);
  });
});

describe('after all of it', () => {
  it('the process is the one it was, and has logged no failure', async () => {
    expect((await api.get('/health/ready')).status).toBe(200);
    expect(backend.exited()).toBe(false);
    expect(backend.output()).not.toContain('"level":"error"');
  });
});

/** A hook that answers and does not say so to Fastify lets the request go on: its body's error then changes the status. */
describe('a request that is refused before its body is read', () => {
  it.each([
    ['a stranger', 'POST', '/api/v1/internal/tunnels/authorize', 401, 'INVALID_INTERNAL_KEY'],
    ['another method', 'PUT', '/api/v1/tunnels', 405, 'METHOD_NOT_ALLOWED'],
  ])('%s keeps that answer whatever the body is', async (_, method, path, status, code) => {
    const types = ['application/json', 'application/xml', 'application/json; charset=utf-16'];
    const bodies = ['{', '{"a":1}', '\uFEFF', 'x'.repeat(70_000), '['.repeat(9_000)];
    const requests = types.flatMap((type) => bodies.map((body) => ({ type, body })));
    for (let round = 0; round < 10; round++) {
      const answers = await Promise.all(
        requests.map(({ type, body }) => api.send(method, path, body, { 'content-type': type })),
      );
      for (const answer of answers) expectProblem(answer, status, code);
    }
  });
});
