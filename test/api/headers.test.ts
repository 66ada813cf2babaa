/** What every answer carries, and what is refused before a route sees it. */
import { once } from 'node:events';
import net from 'node:net';
import { text } from 'node:stream/consumers';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { type Answer, Api } from '../harness/api.js';
import { ControlPlane } from './control-plane.js';

let plane: ControlPlane;
let api: Api;

beforeAll(async () => {
  plane = await ControlPlane.start();
  api = new Api(plane.url());
});

afterAll(() => plane?.stop());

/** What comes back for these bytes, until the other side closes. */
async function raw(request: string): Promise<string> {
  const socket = net.connect(Number(new URL(plane.url()).port), '127.0.0.1');
  socket.write(request);
  const answer = await text(socket);
  socket.destroy();
  return answer;
}

describe('every answer', () => {
  it.each([
    ['of a route', () => api.get('/api/v1/auth/me')],
    ['of a path that is none', () => api.get('/nothing')],
    ['of a method that is none', () => api.delete('/api/v1/auth/login')],
    ['to a stranger at the internal API', () => api.post('/api/v1/internal/servers/register', {})],
    [
      'to a body that is no JSON',
      () => api.send('POST', '/api/v1/auth/login', '{', { 'content-type': 'application/json' }),
    ],
    ['of health', () => api.get('/health')],
    ['of metrics', () => api.get('/metrics')],
  ])('%s may not be stored, sniffed, framed or run', async (_, call) => {
    const { headers } = await call();
    expect(headers.get('cache-control')).toBe('no-store');
    expect(headers.get('x-content-type-options')).toBe('nosniff');
    expect(headers.get('referrer-policy')).toBe('no-referrer');
    expect(headers.get('x-frame-options')).toBe('DENY');
    expect(headers.get('content-security-policy')).toBe(
      "default-src 'none';base-uri 'none';form-action 'none';frame-ancestors 'none'",
    );
    expect(headers.get('x-powered-by')).toBeNull();
    expect(headers.get('strict-transport-security')).toBeNull();
  });
});

describe('the page of the API', () => {
  it('works under its own policy: everything it loads is here, and no script is in it', async () => {
    const page = await api.get('/api/docs');
    const policy = page.headers.get('content-security-policy') ?? '';
    expect(policy).toContain("default-src 'self'");
    expect(policy).toContain("style-src 'self' 'unsafe-inline'");
    expect(policy).toContain("frame-ancestors 'none'");
    const loaded = [...page.text.matchAll(/<(?:script|link)[^>]+(?:src|href)="([^"]+)"/g)].map(([, url = '']) => url);
    expect(loaded.filter((url) => url.endsWith('.js')).length).toBeGreaterThan(2);
    for (const url of loaded) {
      const asset = await fetch(new URL(url, `${plane.url()}/api/docs`));
      expect(asset.status, url).toBe(200);
      expect(asset.url).toContain(plane.url());
      expect(asset.headers.get('x-content-type-options')).toBe('nosniff');
      await asset.arrayBuffer();
    }
    expect(page.text).not.toMatch(/<script(?![^>]*\bsrc=)[^>]*>|\son[a-z]+=/);
  });
});

describe('a method', () => {
  const refused = (answer: Answer, allow: string) => {
    expect(answer).toMatchObject({ status: 405, body: { code: 'METHOD_NOT_ALLOWED', status: 405 } });
    expect(answer.headers.get('content-type')).toContain('application/problem+json');
    expect(answer.headers.get('allow')).toBe(allow);
  };

  it('that a path does not have is refused with those it has', async () => {
    refused(await api.get('/api/v1/auth/login?x=1'), 'POST');
    refused(await api.send('PUT', '/api/v1/tunnels'), 'GET, HEAD, POST');
    refused(await api.send('PUT', '/api/v1/tunnels/x'), 'DELETE, GET, HEAD, PATCH');
    refused(await api.post('/health', {}), 'GET, HEAD');
    expect((await api.send('PUT', '/api/v1/tunnels/x/y')).status).toBe(404);
    expect((await api.send('PUT', '/api/v1')).status).toBe(404);
  });

  it.each([
    ['TRACE', 405],
    ['PROPFIND', 405],
    ['MADEUP', 400],
  ])('that nobody needs is refused, and echoes nothing: %s', async (method, status) => {
    const answer = await raw(
      `${method} /api/v1/tunnels HTTP/1.1\r\nhost: x\r\nx-secret: s3cr3t\r\nconnection: close\r\n\r\n`,
    );
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(answer).toContain('application/problem+json');
    expect(answer).not.toContain('s3cr3t');
  });

  it('CONNECT opens nothing', async () => {
    expect(await raw('CONNECT 127.0.0.1:5432 HTTP/1.1\r\nhost: x\r\n\r\n')).not.toMatch(/^HTTP\/1\.1 2/);
  });
});

describe('a body', () => {
  const login = (body: string) => api.send('POST', '/api/v1/auth/login', body, { 'content-type': 'application/json' });

  it.each([
    ['__proto__', '{"__proto__":{"admin":true},"email":"a@example.com","password":"x"}'],
    ['__proto__ by its escape', '{"\\u005f_proto__":{"admin":true},"email":"a@example.com","password":"x"}'],
    ['constructor.prototype', '{"constructor":{"prototype":{"admin":true}},"email":"a@example.com","password":"x"}'],
    ['nothing but brackets', `${'['.repeat(30_000)}${']'.repeat(30_000)}`],
    ['objects in objects', `${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`],
    ['a byte that is no UTF-8 text', '\u0000'],
  ])('with %s is refused', async (_, body) => {
    const answer = await login(body);
    expect(answer.status).toBe(400);
    expect(['MALFORMED_REQUEST', 'VALIDATION_FAILED']).toContain(answer.body.code);
  });

  it('with a key twice counts the last one, for the check and for what is done', async () => {
    const twice = (first: string, last: string) => login(`{"email":"${first}","email":"${last}","password":"x"}`);
    expect((await twice('a@example.com', 'no e-mail')).status).toBe(400);
    expect((await twice('no e-mail', 'a@example.com')).status).toBe(401);
  });

  it('that is too large is refused by its length, before it has come', async () => {
    const head = 'POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n';
    expect(await raw(`${head}content-length: 100000\r\nconnection: close\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 413 [^]*"code":"PAYLOAD_TOO_LARGE"/,
    );
    const chunk = `10000\r\n${' '.repeat(0x10000)}\r\n`;
    expect(await raw(`${head}transfer-encoding: chunked\r\nconnection: close\r\n\r\n${chunk}${chunk}`)).toMatch(
      /^HTTP\/1\.1 413 /,
    );
  });

  it('of two lengths, or of a length and chunks, is refused: it could be read in two ways', async () => {
    const head = 'POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n';
    expect(await raw(`${head}content-length: 2\r\ncontent-length: 3\r\n\r\n{}`)).toMatch(/^HTTP\/1\.1 400 /);
    expect(await raw(`${head}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 400 /,
    );
  });
});

describe('a request that drips', () => {
  it.each([
    ['headers', 'GET /health HTTP/1.1\r\nhost: x\r\nx-drip: '],
    [
      'a body',
      'POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n',
    ],
  ])('its %s is answered with 408', async (_, start) => {
    const socket = net.connect(Number(new URL(plane.url()).port), '127.0.0.1');
    socket.on('error', () => undefined); // a reset, behind the answer
    socket.write(start);
    const drip = setInterval(() => socket.write('x'), 500);
    const [answer]: unknown[] = await once(socket, 'data', { signal: AbortSignal.timeout(15_000) });
    clearInterval(drip);
    socket.destroy();
    expect(String(answer)).toMatch(/^HTTP\/1\.1 408 [^]*application\/problem\+json[^]*"code":"REQUEST_TIMEOUT"/);
  });
});
