/** What streams of events cost a backend, and what becomes of them when something else fails. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { expectAtBest } from '../harness/at-best.js';
import { startBackend } from '../harness/backend.js';
import { EventStream } from '../harness/event-stream.js';
import { beginSocketIo, beginSse, openWebSocket } from '../harness/raw-streams.js';
import { until } from '../harness/until.js';
import { ControlPlane } from './control-plane.js';

let plane: ControlPlane;
const streams: EventStream[] = [];

beforeAll(async () => {
  plane = await ControlPlane.start();
  await plane.newServer('streams', 10_000);
});

afterEach(() => streams.splice(0).forEach((stream) => stream.close()));
afterAll(() => plane?.stop());

async function open(api: Api, path?: string, lastEventId?: string): Promise<EventStream> {
  const stream = await EventStream.open(api, path, lastEventId);
  streams.push(stream);
  return stream;
}

const openTunnel = async (api: Api, body: object = {}) => (await api.post('/api/v1/tunnels', body)).body;

describe('a backend', () => {
  it('leaves nothing out between what it reads for one who comes back and what it reads for all', async () => {
    const user = await plane.newUser();
    const { id } = await openTunnel(user);
    const { id: userId } = (await user.get('/api/v1/auth/me')).body;
    const [{ low } = {}] = await plane.database.query('SELECT max(id)::text AS low FROM events');
    // reading past these takes longer than the pause between two looks for all
    await plane.database.query(
      `INSERT INTO events (user_id, tunnel_id, type, at, data) SELECT $1, $2, 'tunnel.relocated', now(), '{}' FROM generate_series(1, 300000)`,
      [userId, id],
    );
    const names = '/api/v1/events?types=tunnel.updated';
    // keeps the reading for all going
    const keeper = await open(user, names);
    const change = async () => {
      for (let i = 0; i < 200; i++) await user.patch(`/api/v1/tunnels/${id}`, { name: `n${i}` });
    };
    const comeBack = async () => {
      await keeper.received(5);
      return Promise.all([1, 2, 3, 4, 5, 6].map(() => open(user, names, String(low))));
    };
    const [streams] = await Promise.all([comeBack(), change()]);
    for (const stream of [keeper, ...streams]) {
      await stream.received(200, 20_000);
      expect(stream.events.map((event) => event.id)).toEqual(keeper.events.map((event) => event.id));
    }
  });

  it('with open streams stops at once: they end, and go on at another', async () => {
    const user = await plane.newUser();
    // its drain, and two seconds
    await expectAtBest(5_000, async () => {
      const stopping = await startBackend({ database: plane.database, env: { SHUTDOWN_DRAIN_SECONDS: '3' } });
      const stream = await open(user.at(stopping.url));
      const tunnel = await openTunnel(user);
      await stream.received(1);
      const began = performance.now();
      stopping.signal('SIGTERM');
      await stopping.waitFor('"msg":"draining"');
      // it still serves
      await user.patch(`/api/v1/tunnels/${tunnel.id}`, { name: 'while-draining' });
      await stream.received(2);
      expect(await stopping.exitCode()).toBe(0);
      const ms = performance.now() - began;
      await until(() => stream.ended, 'the stream ends');
      expect(stream.events.at(-1)).toEqual({ id: undefined, event: 'end', data: { code: 'UNAVAILABLE' } });
      await user.delete(`/api/v1/tunnels/${tunnel.id}`);
      const next = await open(user, '/api/v1/events', stream.lastEventId);
      await next.received(1);
      expect(next.types()).toEqual(['tunnel.closed']);
      return ms;
    });
  });

  it('that stops refuses no stream: one that comes late begins, ends at once, and goes on at another', async () => {
    const user = await plane.newUser();
    const stopping = await startBackend({ database: plane.database });
    // while it waits for the last words to socket.io's clients it still accepts
    const socket = net.connect(Number(new URL(stopping.url).port), '127.0.0.1').on('error', () => undefined);
    await beginSocketIo(socket, String(user.headers['authorization']).replace('Bearer ', ''));
    const first = await open(user.at(stopping.url));
    // connected before, and asking at the end of the first: nobody can miss a moment that lasts a second
    const late = net.connect(Number(new URL(stopping.url).port), '127.0.0.1').setEncoding('utf8');
    const heard = new Promise<string>((resolve) => {
      let text = '';
      late.on('data', (chunk: string) => (text += chunk)).on('close', () => resolve(text));
    });
    await once(late, 'connect');
    stopping.signal('SIGTERM');
    await once(first.response, 'end');
    const head = `host: x\r\nauthorization: ${user.headers['authorization']}\r\nlast-event-id: ${first.lastEventId}`;
    late.write(`GET /api/v1/events HTTP/1.1\r\n${head}\r\n\r\n`);
    const text = await heard;
    expect(text).toMatch(/^HTTP\/1\.1 200 /);
    // nothing but its end, so that the client comes back with the id that it has
    expect(text.match(/^(event|id|data): .*$/gm)).toEqual(['event: end', 'data: {"code":"UNAVAILABLE"}']);
    expect(await stopping.exitCode()).toBe(0);
    socket.destroy();
  });

  it.each([
    ['SSE', beginSse],
    ['socket.io', beginSocketIo],
  ])('cuts off who does not read, and keeps nothing for them: %s', async (_, begin) => {
    // so little that it collects its garbage, and ends when it keeps what nobody reads
    const env = { NODE_OPTIONS: '--max-old-space-size=256' };
    const slowReader = await startBackend({ database: plane.database, env });
    const user = await plane.newUser();
    const { id: userId } = (await user.get('/api/v1/auth/me')).body;
    const carried = async () =>
      /^bore_event_streams (\d+)$/m.exec((await new Api(slowReader.url).get('/metrics')).text)?.[1];
    const quick = await open(user.at(slowReader.url));
    let written = 0;
    // 5 MB of events; real ones are shorter
    const write = async () => {
      await plane.database.query(
        `INSERT INTO events (user_id, type, at, data) SELECT $1, 'tunnel.updated', now(), jsonb_build_object('text', repeat('x', 10000)) FROM generate_series(1, 500)`,
        [userId],
      );
      await quick.received((written += 500), 20_000);
    };
    // what this work takes without a slow one
    for (let i = 0; i < 6; i++) await write();
    // more than one, so that what would be kept for them stands out from what garbage collection leaves
    const slow = Array.from({ length: 12 }, () => net.connect(Number(new URL(slowReader.url).port), '127.0.0.1'));
    try {
      for (const socket of slow) {
        await begin(socket, String(user.headers['authorization']).replace('Bearer ', ''));
        socket.pause();
      }
      expect(await carried()).toBe('13');
      const before = memoryOf(slowReader.pid);
      // 40 MB: more than all buffers of the kernel hold, and twelve times as much if the backend kept it for each
      for (let i = 0; i < 8; i++) await write();
      expect(memoryOf(slowReader.pid) - before).toBeLessThan(200_000_000);
      await until(async () => (await carried()) === '1', 'the connections are cut', 20_000);
      expect(quick.ended).toBe(false);
    } finally {
      for (const socket of slow) socket.destroy();
      await slowReader.stop();
    }
  });

  it.each([
    ['asks for namespaces that are not there', textFrame('40/x,')],
    ['says again and again that it comes', textFrame('40')],
    ['answers pings that nobody has sent', textFrame('3')],
    ['sends pings of WebSockets', Buffer.from([0x89, 0x80, 0, 0, 0, 0])],
  ])('cuts off a stranger who floods it, and keeps no answers for them: one that %s', async (_, frame) => {
    const { url = '', pid = 0 } = plane.backends[0] ?? {};
    const socket = net.connect(Number(new URL(url).port), '127.0.0.1');
    await openWebSocket(socket);
    // who does not read what it is answered
    socket.pause();
    const before = memoryOf(pid);
    const began = performance.now();
    let gone = false;
    socket.on('close', () => (gone = true)).on('error', () => (gone = true));
    const chunk = Buffer.alloc(5_000 * frame.length, frame);
    const flood = () => {
      if (!gone && performance.now() - began < 4_000) socket.write(chunk, () => setImmediate(flood));
    };
    flood();
    await until(() => gone, 'it is cut off', 3_000).finally(() => socket.destroy());
    expect(memoryOf(pid) - before).toBeLessThan(50_000_000);
  });

  it('looks at no more than a few words of a stranger who polls', async () => {
    const polling = `${plane.url()}/socket.io/?EIO=4&transport=polling`;
    const open = await (await fetch(polling)).text();
    const session = `${polling}&sid=${JSON.parse(open.slice(1)).sid}`;
    // packets of one request are separated by this sign
    const body = Array.from({ length: 2_000 }, () => '40/x,').join('\x1e');
    await fetch(session, { method: 'POST', body }).catch(() => undefined);
    expect((await fetch(session)).status).toBe(400);
  });

  it('goes on when the connection that brings the hints is cut', async () => {
    const user = await plane.newUser();
    const stream = await open(user);
    const { id } = await openTunnel(user);
    await stream.received(1);
    const listeners = `FROM pg_stat_activity WHERE application_name = 'bore-events' AND datname = current_database()`;
    const listening = () =>
      until(async () => (await plane.database.query(`SELECT ${listeners}`)).length === 1, 'all listen');
    /** How long the stream waits for what another change tells, in ms. */
    const waited = async () => {
      const told = stream.events.length;
      const began = performance.now();
      await user.patch(`/api/v1/tunnels/${id}`, { name: `n${told}` });
      await stream.received(told + 1);
      return performance.now() - began;
    };
    await expectAtBest(2_000, async () => {
      await listening();
      await plane.database.query(`SELECT pg_terminate_backend(pid) ${listeners}`);
      return waited();
    });
    await listening();
    // without hints it would look once a second
    const hinted: number[] = [];
    for (let i = 0; i < 5; i++) hinted.push(await waited());
    expect(hinted.toSorted((a, b) => a - b)[2]).toBeLessThan(500);
  });
});

// with backends of its own: those of one database must agree on how often they look
it('forgets events when their time is over', async () => {
  const own = await ControlPlane.start({ env: { HOUSEKEEPING_INTERVAL_MS: '50' } });
  try {
    const { id } = (await (await own.newUser()).get('/api/v1/auth/me')).body;
    // more than one statement deletes
    await own.database.query(
      `INSERT INTO events (user_id, type, at, data)
       SELECT $1, 'tunnel.updated', now() - make_interval(hours => CASE WHEN n > 12000 THEN 71 ELSE 73 END), '{}'
       FROM generate_series(1, 12002) AS n`,
      [id],
    );
    const left = () => own.database.query(`SELECT at < now() - interval '72 hours' AS old FROM events`);
    await until(async () => (await left()).length === 2, 'two are left', 20_000);
    expect(await left()).toEqual([{ old: false }, { old: false }]);
  } finally {
    await own.stop();
  }
});

/** A short text as a client of a WebSocket sends it: masked, with zeros. */
function textFrame(text: string): Buffer {
  return Buffer.concat([Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]), Buffer.from(text)]);
}

/** Bytes of memory that a process has in use. */
function memoryOf(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;
}
