/** `deploy/nginx` with TLS, in front of a backend: what holds over TLS beside what nginx-api.test.ts shows. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, chmod, readdir, readFile, writeFile } from 'node:fs/promises';
import http, { type IncomingMessage } from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import tls from 'node:tls';
import { promisify } from 'node:util';

import { io, type Socket } from 'socket.io-client';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { z } from 'zod';

import { findNginx } from '../../src/local/nginx.js';
import { PROJECT_DIR } from '../../src/local/state-folders.js';
import { Api } from '../harness/api.js';
import { PlaneClient } from '../api/plane-client.js';
import { type Backend, SECRETS, startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { EventStream } from '../harness/event-stream.js';
import { newCertificate, nginxUnavailable, startNginx, type TestCertificate } from '../harness/nginx.js';
import type { RunningProcess } from '../harness/running-process.js';
import { until } from '../harness/until.js';

const ADDRESS = '127.44.0.1';
const BACKEND = '127.44.0.11';
/** A caller from elsewhere. */
const STRANGER = '127.44.0.99';
const [API_PORT, REDIRECT_PORT] = [3443, 3080];
const PASSWORD = 'correct horse battery';
const HSTS = 'max-age=31536000';

const reason = await nginxUnavailable();
const Login = z.object({ accessToken: z.string() });

interface Heard {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly text: string;
}

describe('nginx with TLS in front of the API', () => {
  let database: TestDatabase;
  let backend: Backend;
  /** A bore-server, as far as backends see. */
  let plane: PlaneClient;
  let nginx: RunningProcess;
  let certificate: TestCertificate;
  let acmeFolder: string;
  let accessToken = '';

  beforeEach(({ skip }) => {
    if (reason !== undefined) skip(reason);
  });

  beforeAll(async () => {
    if (reason !== undefined) return;
    database = await createDatabase();
    const env = {
      HOST: BACKEND,
      PORT: String(API_PORT),
      TRUST_PROXY: ADDRESS,
      RESERVED_CAPACITY_PERCENT: '0',
      SERVER_LEASE_SECONDS: '600',
    };
    backend = await startBackend({ database, env });
    plane = new PlaneClient(`http://${BACKEND}:${API_PORT}`, SECRETS.INTERNAL_API_KEY, 's1', {
      min: 10_000,
      max: 10_009,
    });
    await plane.register();
    certificate = await newCertificate(`IP:${ADDRESS}`);
    acmeFolder = await mkdtemp(path.join(inject('scratch'), 'acme-'));
    await chmod(acmeFolder, 0o755);
    // the file's three backends are one
    const range = (i: number) => ({ min: 10_000 + i, max: 10_000 + i });
    nginx = await startNginx(
      {
        address: ADDRESS,
        controlPort: 7835,
        servers: [0, 1, 2].map((i) => ({ address: BACKEND, portRange: range(i) })),
        api: { port: API_PORT },
      },
      { certificate, redirectPort: REDIRECT_PORT, acmeFolder },
    );
    const body = JSON.stringify({ email: 'tls@example.com', password: PASSWORD });
    const answer = await ask('POST', '/api/v1/auth/signup', { body });
    ({ accessToken } = Login.parse(JSON.parse(answer.text)));
  });

  afterAll(async () => {
    await nginx?.stop();
    plane?.close();
    await backend?.stop();
    await database?.drop();
  });

  const from = { host: ADDRESS, localAddress: STRANGER, agent: false };

  async function ask(method: string, at: string, { body = '', plain = false } = {}): Promise<Heard> {
    const headers = {
      ...(body !== '' && { 'content-type': 'application/json' }),
      ...(accessToken !== '' && { authorization: `Bearer ${accessToken}` }),
    };
    const options = { ...from, method, path: at, headers };
    const request = plain
      ? http.request({ ...options, port: REDIRECT_PORT })
      : https.request({ ...options, port: API_PORT, ca: certificate.pem });
    request.end(body);
    const response = await new Promise<IncomingMessage>((resolve, reject) =>
      request.on('response', resolve).on('error', reject),
    );
    return { status: response.statusCode ?? 0, headers: response.headers, text: await text(response) };
  }

  /** What is agreed on with a client that offers this, or why nothing is. */
  async function handshake(offer: tls.SecureContextOptions & { ALPNProtocols?: string[] }): Promise<string> {
    const socket = tls.connect({ host: ADDRESS, port: API_PORT, ca: certificate.pem, ...offer });
    try {
      await once(socket, 'secureConnect');
      return `${socket.getProtocol()} ${socket.getCipher().name}`;
    } catch (error) {
      return z.object({ code: z.string() }).parse(error).code;
    } finally {
      socket.destroy();
    }
  }

  it('speaks TLS 1.2 and 1.3, and nothing older', async () => {
    const only = (version: 'TLSv1.1' | 'TLSv1.2' | 'TLSv1.3') => ({ minVersion: version, maxVersion: version });
    expect(await handshake(only('TLSv1.3'))).toMatch(/^TLSv1\.3 /);
    expect(await handshake(only('TLSv1.2'))).toMatch(/^TLSv1\.2 ECDHE-ECDSA-/);
    // said by nginx: our side would take it
    const old = { ...only('TLSv1.1'), ciphers: 'DEFAULT@SECLEVEL=0' };
    expect(await handshake(old)).toBe('ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION');
  });

  it('takes ciphers with forward secrecy and authentication only, the one that the client likes best', async () => {
    const offer = (ciphers: string) => handshake({ maxVersion: 'TLSv1.2', ciphers });
    for (const weak of ['ECDHE-ECDSA-AES128-SHA256', 'ECDHE-ECDSA-AES256-SHA', 'AES128-GCM-SHA256'])
      expect(await offer(weak), weak).toMatch(/HANDSHAKE_FAILURE/);
    const [small, large] = ['ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-AES256-GCM-SHA384'];
    expect(await offer(`${small}:${large}`)).toBe(`TLSv1.2 ${small}`);
    expect(await offer(`${large}:${small}`)).toBe(`TLSv1.2 ${large}`);
  });

  it('says the security headers once, whoever answers: the backend, or nginx itself', async () => {
    const answers = {
      backend: await ask('GET', '/api/v1/auth/me'),
      'backend, which refuses': await ask('GET', '/nothing'),
      nginx: await ask('GET', '/metrics'),
      'nginx, of what is too large': await ask('POST', '/api/v1/tunnels', { body: 'x'.repeat(200_000) }),
    };
    expect(Object.values(answers).map(({ status }) => status)).toEqual([200, 404, 403, 413]);
    for (const [who, { headers }] of Object.entries(answers)) {
      // Node joins what is there twice with a comma
      expect(headers['x-content-type-options'], who).toBe('nosniff');
      expect(headers['content-security-policy'], who).toMatch(/^default-src 'none';[^,]*frame-ancestors 'none'$/);
      expect(headers['strict-transport-security'], who).toBe(HSTS);
    }
  });

  it('speaks HTTP/2, and the backend hears who asks', async () => {
    const session = http2.connect(`https://${ADDRESS}:${API_PORT}`, { ca: certificate.pem });
    try {
      const stream = session.request({ ':path': '/api/v1/auth/sessions', authorization: `Bearer ${accessToken}` });
      const [headers] = await once(stream, 'response');
      expect(session.alpnProtocol).toBe('h2');
      expect(headers).toMatchObject({ ':status': 200, 'strict-transport-security': HSTS });
      // the address of the session that signed up
      expect(await text(stream)).toContain(`"${STRANGER}"`);
    } finally {
      session.close();
    }
  });

  it('sends port 80 to https with method and body, without Strict-Transport-Security, but for certificates', async () => {
    const { status, headers } = await ask('POST', '/api/v1/tunnels?x=1', { body: '{}', plain: true });
    expect([status, headers.location]).toEqual([308, `https://${ADDRESS}/api/v1/tunnels?x=1`]);
    expect(headers['strict-transport-security']).toBeUndefined();
    for (const at of ['/metrics', '/api/v1/internal/servers/register'])
      expect((await ask('GET', at, { plain: true })).status).toBe(308);
    const folder = path.join(acmeFolder, '.well-known/acme-challenge');
    await mkdir(folder, { recursive: true });
    await writeFile(path.join(folder, 'token'), 'proof');
    expect(await ask('GET', '/.well-known/acme-challenge/token', { plain: true })).toMatchObject({
      status: 200,
      text: 'proof',
    });
  });

  it('keeps /metrics, its own figures and the internal API from strangers as before', async () => {
    for (const at of ['/metrics', '/metrics/bore-servers', '/nginx_status', '/api/v1/internal/servers/register']) {
      const { status, headers } = await ask('GET', at);
      // the backend would refuse some of them too, as JSON
      expect([status, headers['content-type']], at).toEqual([403, 'text/html']);
    }
  });

  it.each(['websocket', 'polling'])('carries socket.io over %s', async (transport) => {
    const names: string[] = [];
    const socket: Socket = io(`https://${ADDRESS}:${API_PORT}`, {
      transports: [transport],
      forceNew: true,
      reconnection: false,
      auth: { token: accessToken },
      ca: certificate.pem,
    });
    socket.onAny((name: string) => names.push(name));
    try {
      await until(() => names.includes('position'), `the stream begins over ${transport}`);
      expect(socket.io.engine.transport.name).toBe(transport);
    } finally {
      socket.disconnect();
    }
  });

  it('carries events one by one, through a silence that is longer than its ordinary time-out', async () => {
    const api = new Api(`https://${ADDRESS}:${API_PORT}`).withToken(accessToken);
    const stream = await EventStream.open(api, '/api/v1/events', '', certificate.pem);
    try {
      expect(stream.status).toBe(200);
      const ordinary = Number(/proxy_read_timeout (\d+)s/.exec(await shipped('api.conf'))?.[1]);
      // the backend’s keep-alives: between them nothing is said
      const nextComment = async () => {
        const { comments } = stream;
        await until(() => stream.comments > comments || stream.ended, 'a keep-alive', 20_000);
        return performance.now();
      };
      const [one, other] = [await nextComment(), await nextComment()];
      expect(other - one).toBeGreaterThan(ordinary * 1000);
      expect(stream.ended).toBe(false);
      const { status } = await ask('POST', '/api/v1/tunnels', { body: '{}' });
      expect(status).toBe(201);
      await stream.received(1);
      expect(stream.types()).toEqual(['tunnel.created']);
    } finally {
      stream.close();
    }
  });
});

const shipped = (name: string) => readFile(path.join(PROJECT_DIR, 'deploy/nginx', name), 'utf8');

describe('nginx -t', () => {
  it('takes every file as it is shipped, all of them together', async ({ skip }) => {
    if (reason !== undefined) skip(reason);
    const installation = await findNginx(process.env['PATH']);
    const folder = await mkdtemp(path.join(inject('scratch'), 'nginx-t-'));
    const { certificateFile, keyFile } = await newCertificate('IP:127.0.0.1');
    const files = (await readdir(path.join(PROJECT_DIR, 'deploy/nginx'))).sort();
    expect(files).toEqual(['api.conf', 'redirect.conf', 'stream.conf', 'tls.conf']);
    for (const file of files) {
      // the one edit that the guide asks for, and where the certificate is
      const conf = (await shipped(file))
        .replace('/etc/nginx/bore/fullchain.pem', certificateFile)
        .replace('/etc/nginx/bore/privkey.pem', keyFile);
      const edited = file === 'api.conf' ? conf.replace('listen 80;', `include ${folder}/tls.conf;`) : conf;
      await writeFile(path.join(folder, file), edited);
    }
    const main = path.join(folder, 'nginx.conf');
    await writeFile(
      main,
      `${installation.loadStream} pid ${folder}/pid; error_log stderr; events { worker_connections 4096; }
      http { access_log off; include ${folder}/api.conf; include ${folder}/redirect.conf; }
      include ${folder}/stream.conf;`,
    );
    const { stderr } = await promisify(execFile)('nginx', ['-t', '-e', 'stderr', '-c', main], {
      env: { PATH: installation.path },
    });
    expect(stderr).toContain('test is successful');
    expect(stderr).not.toMatch(/\[(warn|emerg|error)\]/);
  });
});
