/** `deploy/nginx/api.conf` by itself: what it passes on, repeats, keeps away and answers. Behind it stand servers of the test's own. */
import { once } from 'node:events';
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { Problem } from '../../src/platform/http/problem.filter.js';
import { nginxUnavailable, startNginx } from '../harness/nginx.js';
import type { RunningProcess } from '../harness/running-process.js';
import { until } from '../harness/until.js';

const ADDRESS = '127.43.0.1';
const MACHINES = ['127.43.0.11', '127.43.0.12', '127.43.0.13'];
/** A caller from elsewhere. */
const STRANGER = '127.43.0.99';
const API_PORT = 3000;

const reason = await nginxUnavailable();

interface Seen {
  readonly server: number;
  readonly method: string;
  readonly url: string;
  readonly headers: http.IncomingHttpHeaders;
}
interface Heard {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly text: string;
}

describe('nginx in front of the API', () => {
  let nginx: RunningProcess;
  const seen: Seen[] = [];
  const upgraded: Duplex[] = [];
  let answer: (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;
  const servers = MACHINES.map((_, i) =>
    http
      .createServer((request, response) => {
        seen.push({ server: i, method: request.method ?? '', url: request.url ?? '', headers: request.headers });
        void answer(request, response);
      })
      .on('upgrade', (request: IncomingMessage, socket: Duplex) => {
        seen.push({ server: i, method: 'UPGRADE', url: request.url ?? '', headers: request.headers });
        upgraded.push(socket);
        socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n');
        socket.pipe(socket);
      }),
  );

  beforeEach(({ skip }) => {
    if (reason !== undefined) skip(reason);
    seen.length = 0;
    answer = (_request, response) => void response.end('ok');
  });

  beforeAll(async () => {
    if (reason !== undefined) return;
    await Promise.all(servers.map((server, i) => once(server.listen(API_PORT, MACHINES[i]), 'listening')));
    nginx = await startNginx({
      address: ADDRESS,
      controlPort: 7835,
      servers: MACHINES.map((address, i) => ({ address, portRange: { min: 10_000 + i, max: 10_000 + i } })),
      api: { port: API_PORT },
    });
  });

  afterAll(async () => {
    await nginx?.stop();
    for (const socket of upgraded) socket.destroy();
    for (const server of servers) server.close().closeAllConnections();
  });

  interface Ask {
    readonly from?: string;
    readonly headers?: Record<string, string>;
    readonly body?: string;
  }
  const open = (method: string, path: string, { from = STRANGER, headers = {} }: Ask = {}) =>
    http.request({ host: ADDRESS, port: API_PORT, localAddress: from, agent: false, method, path, headers });
  async function ask(method: string, path: string, options: Ask = {}): Promise<Heard> {
    const request = open(method, path, options).end(options.body);
    const response = await new Promise<IncomingMessage>((resolve, reject) =>
      request.on('response', resolve).on('error', reject),
    );
    let text = '';
    for await (const chunk of response.setEncoding('utf8')) text += chunk;
    return { status: response.statusCode ?? 0, headers: response.headers, text };
  }

  it('names the caller, whatever the caller says', async () => {
    const headers = { 'x-forwarded-for': '192.0.2.1', 'x-forwarded-proto': 'https' };
    await ask('GET', '/api/v1/tunnels', { headers });
    await ask('GET', '/socket.io/?transport=polling', { headers });
    for (const { headers: heard } of seen)
      expect(heard).toMatchObject({ 'x-forwarded-for': STRANGER, 'x-forwarded-proto': 'http', host: ADDRESS });
    expect(seen).toHaveLength(2);
  });

  it('keeps the figures away from everybody, and the internal API from strangers', async () => {
    expect((await ask('GET', '/metrics')).status).toBe(403);
    expect((await ask('GET', '/metrics', { from: ADDRESS })).status).toBe(403);
    expect((await ask('GET', '/metrics/bore-servers', { from: ADDRESS })).status).toBe(403);
    expect((await ask('POST', '/api/v1/internal/servers/register')).status).toBe(403);
    expect((await ask('POST', '/api/v1//internal/../internal/servers/register')).status).toBe(403);
    expect(seen).toEqual([]);
    const body = 'x'.repeat(2_000_000);
    expect((await ask('POST', '/api/v1/internal/servers/s1/heartbeat', { from: ADDRESS, body })).status).toBe(200);
  });

  it('shows its own figures to this machine alone', async () => {
    expect((await ask('GET', '/nginx_status')).status).toBe(403);
    const { status, text } = await ask('GET', '/nginx_status', { from: '127.0.0.1' });
    expect([status, text]).toEqual([200, expect.stringMatching(/^Active connections: \d+/)]);
    expect(seen).toEqual([]);
  });

  it('adds no header that backends send, and keeps theirs', async () => {
    answer = (_request, response) => void response.setHeader('x-frame-options', 'DENY').end();
    const { headers } = await ask('GET', '/api/v1/tunnels');
    expect(headers['x-frame-options']).toBe('DENY');
    expect(Object.keys(headers).filter((name) => /^(x-|content-sec|strict|referrer)/.test(name))).toEqual([
      'x-frame-options',
    ]);
    expect(headers.server).toBe('nginx');
  });

  it('passes events on one by one, as they come', async () => {
    let more: ServerResponse | undefined;
    answer = (_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: 1\n\n');
      more = response;
    };
    const [response] = await once(open('GET', '/api/v1/events').end(), 'response');
    // the answer has not ended: what was held back would not be here
    const [first] = await once(response.setEncoding('utf8'), 'data');
    expect(first).toBe('data: 1\n\n');
    more?.write('data: 2\n\n');
    const [second] = await once(response, 'data');
    expect(second).toBe('data: 2\n\n');
    more?.end();
  });

  it('makes a WebSocket of /socket.io/ alone, and gives all polling of an address to one backend', async () => {
    const headers = { connection: 'Upgrade', upgrade: 'websocket' };
    const [, socket] = await once(open('GET', '/socket.io/?transport=websocket', { headers }).end(), 'upgrade');
    socket.write('hello');
    expect(String((await once(socket, 'data'))[0])).toBe('hello');
    socket.destroy();

    await ask('GET', '/api/v1/tunnels', { headers });
    expect(seen.at(-1)?.headers).not.toHaveProperty('upgrade');
    seen.length = 0;
    for (let i = 0; i < 6; i++) await ask('POST', '/socket.io/?transport=polling', { body: '2' });
    expect(new Set(seen.map(({ server }) => server)).size).toBe(1);
    for (let last = 100; last < 130; last++) await ask('GET', '/socket.io/', { from: `127.43.0.${last}` });
    expect(new Set(seen.map(({ server }) => server)).size).toBe(3);
  });

  it('repeats what was sent and not answered for GET and DELETE, and never for POST and PATCH', async () => {
    answer = (request) => void request.socket.destroy();
    for (const method of ['POST', 'PATCH']) {
      seen.length = 0;
      const { status, headers, text } = await ask(method, '/api/v1/tunnels', { body: '{}' });
      expect(seen).toHaveLength(1);
      expect(status).toBe(503);
      expect(headers).toMatchObject({ 'content-type': 'application/problem+json', 'retry-after': '1' });
      expect(Problem.parse(JSON.parse(text))).toMatchObject({ status: 503, code: 'UNAVAILABLE', retryAfter: 1 });
    }
    await allLive();
    for (const method of ['GET', 'DELETE']) {
      let left = 1;
      seen.length = 0;
      answer = (request, response) => void (left-- > 0 ? request.socket.destroy() : response.end('ok'));
      expect(await ask(method, '/api/v1/tunnels/x')).toMatchObject({ status: 200, text: 'ok' });
      expect(new Set(seen.map(({ server }) => server)).size).toBe(2);
      await allLive();
    }
  });

  it('sends a POST elsewhere where it was refused, with its body', async () => {
    const [first] = servers;
    await allLive();
    first?.close().closeAllConnections();
    const bodies: string[] = [];
    answer = async (request, response) => {
      let text = '';
      for await (const chunk of request.setEncoding('utf8')) text += chunk;
      bodies.push(text);
      response.statusCode = 201;
      response.end();
    };
    const answers = await Promise.all(
      Array.from({ length: 30 }, (_, i) => ask('POST', '/api/v1/tunnels', { body: String(i) })),
    );
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 201));
    expect(new Set(bodies).size).toBe(30);
    expect(bodies).toHaveLength(30);
    expect(nginx.output()).toContain('Connection refused) while connecting to upstream');
    await once(first?.listen(API_PORT, MACHINES[0]) ?? new http.Server(), 'listening');
  });

  it('answers a flood from one address as the API does, and nobody else notices', async () => {
    const isLimited = async () => {
      const flood = await Promise.all(Array.from({ length: 300 }, () => ask('GET', '/api/v1/tunnels')));
      const refused = flood.filter(({ status }) => status === 429);
      return refused.length > 0 ? refused : undefined;
    };
    // a machine that takes three seconds for 300 requests floods nobody
    const limited = await until(isLimited, 'the flood is limited', 15_000);
    for (const { headers, text } of limited) {
      expect(headers).toMatchObject({ 'content-type': 'application/problem+json', 'retry-after': '1' });
      expect(Problem.parse(JSON.parse(text))).toMatchObject({ status: 429, code: 'TOO_MANY_REQUESTS' });
    }
    expect((await ask('GET', '/api/v1/tunnels', { from: '127.43.0.98' })).status).toBe(200);
  });

  /** After failures nginx leaves a backend out for 5 s: waits until each of them has answered. */
  async function allLive(): Promise<void> {
    answer = (_request, response) => void response.end('ok');
    seen.length = 0;
    const all = async () => {
      await ask('GET', '/', { from: '127.43.0.97' });
      return new Set(seen.map(({ server }) => server)).size === MACHINES.length;
    };
    await until(all, 'all backends are asked', 15_000);
    seen.length = 0;
  }
});
