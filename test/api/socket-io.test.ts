/** The streams of events over socket.io, through a load balancer that is a real nginx. */
import { mkdtemp, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';

import { io, type ManagerOptions, type Socket, type SocketOptions } from 'socket.io-client';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { expectAtBest } from '../harness/at-best.js';
import { startBackend } from '../harness/backend.js';
import { EventStream } from '../harness/event-stream.js';
import { nginxUnavailable } from '../harness/nginx.js';
import { ownPort } from '../harness/own-ports.js';
import { openWebSocket } from '../harness/raw-streams.js';
import { RunningProcess } from '../harness/running-process.js';
import { until } from '../harness/until.js';
import { ControlPlane } from './control-plane.js';

let plane: ControlPlane;
let unavailable: string | undefined;
const sockets: Client[] = [];

beforeAll(async () => {
  unavailable = await nginxUnavailable();
  plane = await ControlPlane.start({
    backends: 2,
    env: { EVENT_STREAMS_PER_USER_MAX: '5', ALLOWED_ORIGINS: 'https://app.example.com' },
  });
  await plane.newServer('sockets', 10_000);
});

afterEach(() => sockets.splice(0).forEach(({ socket }) => socket.disconnect()));
afterAll(() => plane?.stop());

const openTunnel = async (api: Api, body: object = {}) => (await api.post('/api/v1/tunnels', body)).body;
const tokenOf = (api: Api) => String(api.headers['authorization']).replace('Bearer ', '');

type Options = Partial<ManagerOptions & SocketOptions>;

/** A client as the documentation has it: it remembers its last id, and says it whenever it connects. */
class Client {
  readonly events: { name: string; id: string | undefined; body: unknown }[] = [];
  readonly refusals: unknown[] = [];
  readonly ends: string[] = [];
  lastEventId: string | undefined;
  connections = 0;
  attempts = 0;
  readonly socket: Socket;

  constructor(url: string, auth: object, options: Options = {}) {
    this.socket = io(url, {
      transports: ['websocket'],
      reconnectionDelay: 50,
      reconnectionDelayMax: 200,
      forceNew: true,
      auth: (say) => say({ ...auth, ...(this.lastEventId !== undefined && { lastEventId: this.lastEventId }) }),
      ...options,
    });
    this.socket.io.on('reconnect_attempt', () => (this.attempts += 1));
    this.socket.on('connect', () => (this.connections += 1));
    this.socket.on('connect_error', (error) => this.refusals.push(Object(error).data ?? error.message));
    this.socket.on('disconnect', (reason) => this.ends.push(reason));
    this.socket.onAny((name: string, body: { id?: string; lastEventId?: string }) => {
      this.lastEventId = body.id ?? body.lastEventId ?? this.lastEventId;
      this.events.push({ name, id: body.id, body });
    });
    sockets.push(this);
  }

  ids(): (string | undefined)[] {
    return this.events.filter(({ id }) => id !== undefined).map(({ id }) => id);
  }

  names(): string[] {
    return this.events.map(({ name }) => name);
  }

  /** Resolves when it has connected and knows where it stands. */
  async ready(): Promise<this> {
    await until(() => this.names().includes('position'), 'the stream begins');
    return this;
  }

  async received(count: number, deadlineMs = 10_000): Promise<void> {
    await until(() => this.ids().length >= count, `${count} events`, deadlineMs).catch((cause: unknown) => {
      throw new Error(`received ${this.ids().length} of ${count}: ${JSON.stringify([this.refusals, this.ends])}`, {
        cause,
      });
    });
  }
}

const writtenFor = async (api: Api) => {
  const { id } = (await api.get('/api/v1/auth/me')).body;
  const rows = await plane.database.query('SELECT id::text FROM events WHERE user_id = $1 ORDER BY events.id', [id]);
  return rows.map((row) => row['id']);
};

/** An nginx in front of the backends; `balance` says how it chooses. */
async function loadBalancer(balance: string): Promise<{ url: string; nginx: RunningProcess }> {
  const folder = await mkdtemp(path.join(inject('scratch'), 'balancer-'));
  const port = await ownPort();
  const servers = plane.backends.map(({ url }) => `server ${new URL(url).host};`).join(' ');
  // as docs/events.md has it
  await writeFile(
    path.join(folder, 'nginx.conf'),
    `daemon off; worker_processes 1; pid ${folder}/nginx.pid; error_log stderr notice;
     events { worker_connections 512; }
     http {
       access_log off; client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy;
       fastcgi_temp_path ${folder}/f; uwsgi_temp_path ${folder}/u; scgi_temp_path ${folder}/s;
       map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
       upstream backends { ${balance} ${servers} }
       server {
         listen 127.0.0.1:${port};
         location / {
           proxy_pass http://backends; proxy_http_version 1.1; proxy_set_header Host $host; proxy_buffering off;
           proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
         }
       }
     }`,
  );
  const env = { PATH: `${process.env['PATH']}:/usr/sbin` };
  const nginx = new RunningProcess('nginx', ['-e', 'stderr', '-p', folder, '-c', path.join(folder, 'nginx.conf')], env);
  await nginx.waitFor('start worker process ');
  return { url: `http://127.0.0.1:${port}`, nginx };
}

describe('socket.io', () => {
  it('brings the same events as SSE, to clients of every backend, with a login and with an API key', async () => {
    const user = await plane.newUser();
    const { key } = (await user.post('/api/v1/auth/api-keys', { name: 'socket', scopes: ['tunnels:read'] })).body;
    const first = await new Client(plane.url(0), { token: tokenOf(user) }).ready();
    const second = await new Client(plane.url(1), { token: key }).ready();
    const tunnel = await openTunnel(user);
    await user.at(plane.url(1)).patch(`/api/v1/tunnels/${tunnel.id}`, { name: 'renamed' });
    await user.delete(`/api/v1/tunnels/${tunnel.id}`);
    for (const client of [first, second]) {
      await client.received(3);
      expect(client.names()).toEqual(['position', 'tunnel.created', 'tunnel.updated', 'tunnel.closed']);
      expect(client.ids()).toEqual(await writtenFor(user));
    }
    const { items } = (await user.get(`/api/v1/tunnels/${tunnel.id}/events`)).body;
    expect(first.events.slice(1).map(({ body }) => body)).toEqual(items.reverse());
  });

  it('can be of one tunnel and of some types; there is nothing else that a client can ask for', async () => {
    const user = await plane.newUser();
    const foreign = await openTunnel(await plane.newUser());
    const one = await openTunnel(user);
    const ofOne = await new Client(plane.url(), {
      token: tokenOf(user),
      tunnelId: one.id,
      types: ['tunnel.closed'],
    }).ready();
    const curious = await new Client(plane.url(), { token: tokenOf(user) }).ready();
    const other = await openTunnel(user);
    await user.patch(`/api/v1/tunnels/${one.id}`, { name: 'one' });
    await user.delete(`/api/v1/tunnels/${other.id}`);
    await user.delete(`/api/v1/tunnels/${one.id}`);
    await ofOne.received(1);
    // it may be told its position more than once
    expect(ofOne.events.filter(({ id }) => id !== undefined)).toMatchObject([
      { name: 'tunnel.closed', body: { tunnelId: one.id } },
    ]);
    await curious.received(4);
    // as another server's clients subscribe
    curious.socket.emit('subscribe', foreign.id);
    await until(() => curious.ends.length > 0, 'it is cut off');
    expect(JSON.stringify(curious.events)).not.toContain(foreign.id);
  });

  it('refuses who may not, and says why', async () => {
    const user = await plane.newUser();
    const foreign = await openTunnel(await plane.newUser());
    const { key } = (await user.post('/api/v1/auth/api-keys', { name: 'other', scopes: ['usage:read'] })).body;
    const { body } = await user.post('/api/v1/auth/refresh', { refreshToken: 'x' });
    for (const [auth, code] of [
      [{}, 'VALIDATION_FAILED'],
      [{ token: 'x', room: 'all' }, 'VALIDATION_FAILED'],
      [{ token: 'x' }, 'UNAUTHENTICATED'],
      [{ token: String(body.requestId) }, 'UNAUTHENTICATED'],
      [{ token: `${tokenOf(user).slice(0, -2)}xx` }, 'UNAUTHENTICATED'],
      [{ token: key }, 'SCOPE_MISSING'],
      [{ token: tokenOf(user), tunnelId: foreign.id }, 'NOT_FOUND'],
      [{ token: tokenOf(user), types: ['tunnel.exploded'] }, 'VALIDATION_FAILED'],
    ] as const) {
      const client = new Client(plane.url(), auth);
      await until(() => client.refusals.length > 0, `a refusal of ${JSON.stringify(auth)}`);
      expect(client.refusals[0], JSON.stringify(auth)).toMatchObject({ code });
      expect(client.events).toEqual([]);
    }
    for (let i = 0; i < 5; i++) await new Client(plane.url(), { token: tokenOf(user) }).ready();
    const sixth = new Client(plane.url(), { token: tokenOf(user) });
    await until(() => sixth.refusals.length > 0, 'a refusal');
    expect(sixth.refusals[0]).toMatchObject({ code: 'TOO_MANY_STREAMS' });
  });

  it('is tried again by clients of a backend that is full, and begins when it has room', async () => {
    const full = await startBackend({ database: plane.database, env: { EVENT_STREAMS_MAX: '1' } });
    const stream = await EventStream.open((await plane.newUser()).at(full.url));
    const client = new Client(full.url, { token: tokenOf(await plane.newUser()) });
    await until(() => client.attempts > 2, 'it has tried');
    expect(client.connections).toBe(0);
    stream.close();
    await client.ready();
    await full.stop();
  });

  it('ends with the login, and the client does not come back by itself', async () => {
    const user = await plane.newUser();
    const client = await new Client(plane.url(), { token: tokenOf(user) }).ready();
    await user.at(plane.url(1)).post('/api/v1/auth/logout', undefined);
    await until(() => client.ends.length > 0, 'the stream ends', 10_000);
    expect(client.events.at(-1)).toMatchObject({ name: 'end', body: { code: 'UNAUTHENTICATED' } });
    expect(client.ends).toEqual(['io server disconnect']);
  });

  it('lets browsers of allowed origins poll, and no others', async () => {
    const handshake = (origin: string) =>
      fetch(`${plane.url()}/socket.io/?EIO=4&transport=polling`, { headers: { origin } });
    const allowed = await handshake('https://app.example.com');
    expect([allowed.status, allowed.headers.get('access-control-allow-origin')]).toEqual([
      200,
      'https://app.example.com',
    ]);
    expect((await handshake('https://evil.example.com')).headers.get('access-control-allow-origin')).toBeNull();
  });

  it('counts who connects by address, before it is asked who they are', async () => {
    const few = await startBackend({
      database: plane.database,
      env: { RATE_LIMIT_PER_MINUTE: '5', TRUST_PROXY: '127.0.0.1' },
    });
    const handshake = async (address: string) =>
      (await fetch(`${few.url}/socket.io/?EIO=4&transport=polling`, { headers: { 'x-forwarded-for': address } }))
        .status;
    const statuses: number[] = [];
    for (let i = 0; i < 6; i++) statuses.push(await handshake('198.51.100.1'));
    expect(statuses).toEqual([200, 200, 200, 200, 200, 403]);
    expect(await handshake('198.51.100.2')).toBe(200);
    await few.stop();
  });

  it('does not hold up the end of a backend, whatever its clients do', async () => {
    await expectAtBest(5_000, async () => {
      const stopping = await startBackend({ database: plane.database });
      const user = await plane.newUser();
      await new Client(stopping.url, { token: tokenOf(user) }).ready();
      await new Client(stopping.url, { token: tokenOf(user) }, { transports: ['polling'] }).ready();
      // one that has not said who it is
      const silent = net.connect(Number(new URL(stopping.url).port), '127.0.0.1');
      await openWebSocket(silent);
      const began = performance.now();
      await stopping.stop();
      return performance.now() - began;
    });
  });
});

describe('through a load balancer', () => {
  it('a WebSocket needs no stickiness: it goes on at another backend, without a gap, when its own is killed', async (context) => {
    if (unavailable !== undefined) return context.skip(unavailable);
    const { url, nginx } = await loadBalancer('');
    try {
      const users = await Promise.all([0, 1, 2].map(() => plane.newUser(1)));
      const tunnels = await Promise.all(users.map((user) => openTunnel(user)));
      const clients = users.map((user) => new Client(url, { token: tokenOf(user) }));
      await Promise.all(clients.map((client) => client.ready()));
      const change = async (round: string) => {
        for (let i = 0; i < 20; i++) {
          await Promise.all(
            users.map((user, n) => user.patch(`/api/v1/tunnels/${tunnels[n].id}`, { name: `${round}${i}` })),
          );
        }
      };
      await change('a');
      await Promise.all(clients.map((client) => client.received(20)));
      await Promise.all([change('b'), plane.killAndRestart(0)]);
      await change('c');
      await Promise.all(clients.map((client) => client.received(60, 20_000)));
      for (const [i, client] of clients.entries()) {
        // without the one that opened the tunnel, before they came
        const written = users[i] ? (await writtenFor(users[i])).slice(1) : [];
        expect(client.ids()).toEqual(written);
      }
      // by turns: some of them were at the one that was killed
      expect(clients.some(({ connections }) => connections > 1)).toBe(true);
    } finally {
      await nginx.stop();
    }
  });

  it('polling works where a client is always sent to the same backend, and moves up to a WebSocket', async (context) => {
    if (unavailable !== undefined) return context.skip(unavailable);
    const { url, nginx } = await loadBalancer('ip_hash;');
    try {
      const user = await plane.newUser(1);
      const polling = await new Client(url, { token: tokenOf(user) }, { transports: ['polling'] }).ready();
      const both = await new Client(url, { token: tokenOf(user) }, { transports: ['polling', 'websocket'] }).ready();
      const tunnel = await openTunnel(user);
      for (let i = 0; i < 30; i++) await user.patch(`/api/v1/tunnels/${tunnel.id}`, { name: `n${i}` });
      await until(() => both.socket.io.engine.transport.name === 'websocket', 'it moves up');
      await user.delete(`/api/v1/tunnels/${tunnel.id}`);
      for (const client of [polling, both]) {
        await client.received(32);
        expect(client.ids()).toEqual(await writtenFor(user));
        expect(client.connections).toBe(1);
      }
      expect(polling.socket.io.engine.transport.name).toBe('polling');
    } finally {
      await nginx.stop();
    }
  });
});
