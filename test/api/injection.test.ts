import { once } from 'node:events';
import net from 'node:net';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { ControlPlane } from './control-plane.js';

const PASSWORD = 'correct horse battery';

let plane: ControlPlane;
let user: Api;

beforeAll(async () => {
  plane = await ControlPlane.start();
  user = await plane.newUser();
});

afterAll(() => plane?.stop());

/** Sends bytes as they are and returns all that comes back until the connection ends. */
async function exchange(bytes: string): Promise<string> {
  const { port } = new URL(plane.url());
  const socket = net.connect(Number(port), '127.0.0.1');
  let text = '';
  socket.setEncoding('latin1').on('data', (chunk: string) => (text += chunk));
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.end(bytes, 'latin1');
  await once(socket, 'close');
  return text;
}

const statuses = (answers: string) => [...answers.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, status]) => Number(status));

describe('what a caller writes', () => {
  it('cannot forge a line of the log (ASVS 16.4.1)', async () => {
    const forged = '\n{"level":"fatal","msg":"forged"}\n\u001B[31m';
    const header = (text: string) => encodeURIComponent(text);
    await user.send('GET', `/api/v1/tunnels/${header(forged)}`);
    await user.send('GET', `/api/v1/nothing${header(forged)}`);
    await user.post('/api/v1/auth/login', { email: `a@example.com${forged}`, password: forged });
    await user.send('GET', '/api/v1/tunnels', undefined, {
      'x-request-id': 'short',
      'user-agent': '{"level":"fatal"}',
    });
    await exchange(`GET /x HTTP/1.1\r\nhost: x\r\nx-request-id: ${'\u001B'}[31mred\r\nconnection: close\r\n\r\n`);
    const lines = (plane.backends[0]?.output() ?? '').trim().split('\n');
    for (const line of lines) {
      expect(JSON.parse(line)).toMatchObject({
        level: expect.stringMatching(/^(debug|info|warn|error)$/),
        time: expect.any(String),
      });
      // no control character reaches whoever reads the log on a terminal
      expect(line).not.toMatch(/\p{Cc}/u);
    }
    expect(lines.some((line) => JSON.parse(line).msg === 'forged')).toBe(false);
  });

  it('cannot add a header to an answer, and a request id of theirs is taken only where it is harmless', async () => {
    const answer = await user.send('GET', `/api/v1/tunnels/${encodeURIComponent('a\r\nset-cookie: x=y')}`);
    expect([...answer.headers.keys()]).not.toContain('set-cookie');
    const own = await user.send('GET', '/api/v1/tunnels', undefined, { 'x-request-id': 'trace-0123456789' });
    expect(own.headers.get('x-request-id')).toBe('trace-0123456789');
    const odd = await user.send('GET', '/api/v1/tunnels', undefined, { 'x-request-id': '<script>alert(1)</script>' });
    expect(odd.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/);
  });

  it('is stored as text, whatever it looks like, and shown as JSON', async () => {
    const name = `Robert'); DROP TABLE users;--`;
    const api = new Api(plane.url());
    const { status, body } = await api.post('/api/v1/auth/signup', {
      email: 'bobby@example.com',
      password: PASSWORD,
      name,
    });
    expect({ status, name: body.user.name }).toEqual({ status: 201, name });
    expect((await user.get('/api/v1/auth/me')).headers.get('content-type')).toContain('application/json');
  });
});

describe('requests that a proxy and we could read differently (ASVS 4.2.1)', () => {
  const smuggled = 'GET /api/v1/smuggled HTTP/1.1\r\nhost: x\r\n\r\n';
  it.each([
    [
      'two lengths',
      `POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ncontent-length: ${smuggled.length}\r\n\r\n`,
    ],
    [
      'length and chunks',
      'POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    ['chunks by another name', 'POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n'],
    [
      'chunks named twice',
      'POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n',
    ],
    [
      'a chunk size with a sign',
      'POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n\r\n',
    ],
    ['a negative length', 'POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n'],
    ['a space before the colon', 'POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-length : 0\r\n\r\n'],
    [
      'a folded header',
      'POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ntransfer-encoding:\r\n chunked\r\ncontent-length: 3\r\n\r\n',
    ],
    ['a NUL in a header', 'GET /health/live HTTP/1.1\r\nhost: x\0y\r\n\r\n'],
    ['no version', 'GET /health/live\r\n\r\n'],
  ])('%s: refused, and nothing behind it is served', async (_, request) => {
    const answers = await exchange(request + smuggled);
    expect(statuses(answers)).toEqual([400]);
    expect(answers).not.toContain('NOT_FOUND');
  });

  it('a second request on the connection is served after a good one: the test above can fail', async () => {
    const good = 'GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n';
    expect(statuses(await exchange(good + smuggled))).toEqual([200, 404]);
  });

  it.each(['TRACE', 'CONNECT', 'TRACK', 'DEBUG'])('%s is no method of ours', async (method) => {
    const [status] = statuses(
      await exchange(`${method} /api/v1/tunnels HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`),
    );
    // undefined: closed without an answer, as Node does for CONNECT
    expect([400, 404, 405, 501, undefined]).toContain(status);
  });
});
