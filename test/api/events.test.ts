import fc from 'fast-check';
import jwt from 'jsonwebtoken';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { expectAtBest } from '../harness/at-best.js';
import { SECRETS, startBackend } from '../harness/backend.js';
import { EventStream } from '../harness/event-stream.js';
import { until } from '../harness/until.js';
import { ControlPlane } from './control-plane.js';
import type { PlaneClient } from './plane-client.js';

let plane: ControlPlane;
let server: PlaneClient;
const streams: EventStream[] = [];

beforeAll(async () => {
  plane = await ControlPlane.start({ backends: 3, env: { EVENT_STREAMS_PER_USER_MAX: '5' } });
  server = await plane.newServer('events', 10_000, 1000);
  await server.register({ maxTunnels: 1000 });
});

afterEach(() => streams.splice(0).forEach((stream) => stream.close()));
afterAll(() => plane?.stop());

async function open(api: Api, path?: string, lastEventId?: string): Promise<EventStream> {
  const stream = await EventStream.open(api, path, lastEventId);
  streams.push(stream);
  return stream;
}

const openTunnel = async (api: Api, body: object = {}) => (await api.post('/api/v1/tunnels', body)).body;
const idsOf = (stream: EventStream) => stream.events.map(({ id }) => Number(id));

describe('GET events', () => {
  it('tells of every change made at any backend, within a second, on streams of every backend', async () => {
    const user = await plane.newUser();
    const all = await Promise.all([0, 1, 2].map((i) => open(user.at(plane.url(i)))));
    for (const stream of all) {
      expect(stream.status).toBe(200);
      expect(stream.response.headers).toMatchObject({
        'content-type': 'text/event-stream; charset=utf-8',
        'cache-control': 'no-store',
        'x-accel-buffering': 'no',
        'x-request-id': expect.any(String),
      });
    }
    const tunnel = await openTunnel(user, { name: 'blog' });
    const session = (await server.authorize(tunnel.token, tunnel.port)).body;
    await server.beat({ sessions: [session] });
    await user.at(plane.url(1)).patch(`/api/v1/tunnels/${tunnel.id}`, { maxConnections: 7 });
    await server.beat({ ended: [session] });
    await user.at(plane.url(2)).delete(`/api/v1/tunnels/${tunnel.id}`);
    for (const stream of all) await stream.received(5);
    for (const stream of all) {
      expect(stream.types()).toEqual([
        'tunnel.created',
        'tunnel.active',
        'tunnel.updated',
        'tunnel.offline',
        'tunnel.closed',
      ]);
      expect(stream.events).toEqual(all[0]?.events);
      expect(stream.retryMs).toBeGreaterThan(0);
    }
    const [created, active, , , closed] = all[0]?.events ?? [];
    expect(created?.data).toEqual({
      id: created?.id,
      type: 'tunnel.created',
      at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      tunnelId: tunnel.id,
      data: {
        name: 'blog',
        labels: {},
        state: 'pending',
        closeReason: null,
        serverId: 'events',
        host: '127.0.0.1',
        port: tunnel.port,
        clientAddress: null,
        connectedAt: null,
        expiresAt: null,
      },
    });
    expect(active?.data.data).toMatchObject({ state: 'active', clientAddress: '127.0.0.1' });
    expect(closed?.data.data).toMatchObject({ state: 'closed', closeReason: 'deleted' });
    expect(JSON.stringify(all[0]?.events)).not.toContain(tunnel.token);

    let count = 5;
    await expectAtBest(1_000, async () => {
      const { id } = await openTunnel(user);
      await user.at(plane.url(2)).delete(`/api/v1/tunnels/${id}`);
      const deleted = performance.now();
      count += 2;
      for (const stream of all) await stream.received(count);
      return performance.now() - deleted;
    });
  });

  it('can be of one tunnel, of some types, and of states only', async () => {
    const user = await plane.newUser();
    const one = await openTunnel(user);
    const [ofOne, ofTypes, status] = await Promise.all([
      open(user, `/api/v1/events?tunnelId=${one.id}`),
      open(user, '/api/v1/events?types=tunnel.updated,tunnel.closed'),
      open(user, '/api/v1/events/status'),
    ]);
    const other = await openTunnel(user);
    const session = (await server.authorize(other.token, other.port)).body;
    await user.patch(`/api/v1/tunnels/${one.id}`, { name: 'one' });
    await server.beat({ ended: [session] });
    await user.delete(`/api/v1/tunnels/${other.id}`);
    await user.delete(`/api/v1/tunnels/${one.id}`);
    await status.received(4);
    await ofOne.received(2);
    await ofTypes.received(3);
    expect(status.types()).toEqual(['tunnel.active', 'tunnel.offline', 'tunnel.closed', 'tunnel.closed']);
    expect(ofOne.types()).toEqual(['tunnel.updated', 'tunnel.closed']);
    expect(ofTypes.types()).toEqual(['tunnel.updated', 'tunnel.closed', 'tunnel.closed']);
  });

  it('refuses what it cannot do before it begins', async () => {
    const user = await plane.newUser();
    const foreign = await openTunnel(await plane.newUser());
    const stranger = { headers: {}, url: plane.url() };
    for (const [api, path, status, code] of [
      [user.withToken('nonsense'), '/api/v1/events', 401, 'UNAUTHENTICATED'],
      [user, `/api/v1/events?tunnelId=${foreign.id}`, 404, 'NOT_FOUND'],
      [user, '/api/v1/events?tunnelId=1', 400, 'VALIDATION_FAILED'],
      [user, '/api/v1/events?types=tunnel.exploded', 400, 'VALIDATION_FAILED'],
      [user, '/api/v1/events/status?types=tunnel.closed', 400, 'VALIDATION_FAILED'],
      [user, `/api/v1/tunnels/${foreign.id}/events`, 404, 'NOT_FOUND'],
      [user, '/api/v1/tunnels/1/events', 400, 'VALIDATION_FAILED'],
    ] as const) {
      expect(await api.get(path), path).toMatchObject({ status, body: { code } });
    }
    expect((await user.withToken('').at(stranger.url).get('/api/v1/events')).status).toBe(401);
    const head = await user.send('HEAD', '/api/v1/events');
    expect([head.status, head.headers.get('content-type')]).toEqual([200, 'text/event-stream']);
  });

  it('has a limit on the streams of one user, and room again when one has ended', async () => {
    const user = await plane.newUser();
    const five = await Promise.all([1, 2, 3, 4, 5].map(() => open(user)));
    expect(five.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
    const refused = await user.get('/api/v1/events');
    expect(refused).toMatchObject({ status: 429, body: { code: 'TOO_MANY_STREAMS' } });
    expect(refused.headers.get('retry-after')).toMatch(/^\d+$/);
    // of a user and of a backend
    expect((await open(await plane.newUser())).status).toBe(200);
    expect((await open(user.at(plane.url(1)))).status).toBe(200);
    five[2]?.close();
    await until(async () => (await open(user)).status === 200, 'there is room');
  });

  it('has a limit on all streams of a backend', async () => {
    const small = await startBackend({ database: plane.database, env: { EVENT_STREAMS_MAX: '2' } });
    try {
      for (let i = 0; i < 2; i++) expect((await open((await plane.newUser()).at(small.url))).status).toBe(200);
      const refused = await (await plane.newUser()).at(small.url).get('/api/v1/events');
      expect(refused).toMatchObject({ status: 503, body: { code: 'UNAVAILABLE', retryAfter: expect.any(Number) } });
    } finally {
      await small.stop();
    }
  });

  it('shows that it is there at least every 15 s, and says where ids stand although nothing of the user’s happens', async () => {
    const user = await plane.newUser();
    const stream = await open(user);
    const { lastEventId } = stream;
    expect(Number(lastEventId)).toBeGreaterThanOrEqual(0);
    await openTunnel(await plane.newUser());
    await until(() => stream.comments > 0, 'a comment', 15_000);
    // that may have come before the event of the other
    await until(() => Number(stream.lastEventId) > Number(lastEventId), 'it says where ids stand', 15_000);
    expect(stream.events).toEqual([]);
  });
});

describe('Last-Event-ID', () => {
  it('goes on behind it, by header or query, at any backend; without it a stream begins with what comes', async () => {
    const user = await plane.newUser();
    const first = await open(user);
    const tunnel = await openTunnel(user);
    for (let i = 0; i < 5; i++) await user.patch(`/api/v1/tunnels/${tunnel.id}`, { name: `n${i}` });
    const all = (await first.received(6)).map(({ id }) => id);
    const [byHeader, byQuery, both, fresh] = await Promise.all([
      open(user.at(plane.url(1)), '/api/v1/events', all[1]),
      open(user.at(plane.url(2)), `/api/v1/events?lastEventId=${all[3]}`),
      open(user, `/api/v1/events?lastEventId=${all[0]}`, all[4]),
      open(user.at(plane.url(1))),
    ]);
    await user.delete(`/api/v1/tunnels/${tunnel.id}`);
    const last = (await first.received(7)).at(-1)?.id;
    for (const [stream, rest] of [
      [byHeader, all.slice(2)],
      [byQuery, all.slice(4)],
      [both, all.slice(5)],
      [fresh, []],
    ] as const) {
      await stream.received(rest.length + 1);
      expect(stream.events.map(({ id }) => id)).toEqual([...rest, last]);
    }
    // what a client that saw nothing says when it comes back
    expect((await open(user, '/api/v1/events', fresh.lastEventId)).events).toEqual([]);
  });

  it('that is not known any more, or never was, is answered with reset, and the stream goes on from now', async () => {
    const user = await plane.newUser();
    const tunnel = await openTunnel(user);
    const [{ low, high } = {}] = await plane.database.query(
      'SELECT min(id)::int AS low, max(id)::int AS high FROM events',
    );
    await plane.database.query('DELETE FROM events WHERE id <= $1', [Number(low) + 1]);
    const unknown = await Promise.all(
      [String(low), '0', String(Number(high) + 1000), 'abc', '-1', '9'.repeat(40)].map((id, i) =>
        open(user.at(plane.url(i)), '/api/v1/events', id),
      ),
    );
    // the head of a stream comes before it has looked
    for (const stream of unknown) await stream.received(1);
    await user.patch(`/api/v1/tunnels/${tunnel.id}`, { name: 'renamed' });
    for (const stream of unknown) {
      await stream.received(2);
      expect(stream.types()).toEqual(['reset', 'tunnel.updated']);
      expect(stream.events[0]).toEqual({ id: String(high), event: 'reset', data: { lastEventId: String(high) } });
    }
    // the lowest that is left is behind it
    const known = await open(user, '/api/v1/events', String(Number(low) + 1));
    await known.received(2);
    expect(known.types()).not.toContain('reset');
  });

  it('goes on, for those who are there and those who come, when the database goes back to an earlier state', async () => {
    const [user, other] = [await plane.newUser(), await plane.newUser()];
    const othersTunnel = await openTunnel(other);
    const [{ kept } = {}] = await plane.database.query('SELECT max(id)::int AS kept FROM events');
    // before the first of what will be lost: it is told of nothing that it would have to forget
    const quiet = await open(other, '/api/v1/events', String(Number(kept) - 1));
    await quiet.received(1);
    const tunnel = await openTunnel(user);
    const streams = await Promise.all([0, 1].map((i) => open(user.at(plane.url(i)))));
    for (let i = 0; i < 50; i++) await user.patch(`/api/v1/tunnels/${tunnel.id}`, { name: `lost-${i}` });
    for (const stream of streams) await stream.received(50);
    // as after a backup was restored, or a replica promoted that had not got everything
    await plane.database.query(
      `WITH lost AS (DELETE FROM events WHERE id > ${Number(kept)}) SELECT setval(pg_get_serial_sequence('events', 'id'), ${Number(kept)})`,
    );
    const names = ['kept-1', 'kept-2'];
    for (const name of names) await user.patch(`/api/v1/tunnels/${tunnel.id}`, { name });
    const late = await open(user, '/api/v1/events', String(kept));
    await late.received(2);
    expect(late.events.map(({ data }) => data.data.name)).toEqual(names);
    for (const stream of streams) {
      await stream.received(51);
      expect(stream.types()[50]).toBe('reset');
    }
    await user.patch(`/api/v1/tunnels/${tunnel.id}`, { name: 'now' });
    for (const stream of [...streams, late]) {
      await until(() => stream.events.at(-1)?.data.data?.name === 'now', 'it goes on');
    }
    await other.patch(`/api/v1/tunnels/${othersTunnel.id}`, { name: 'now' });
    await quiet.received(2);
    // what it has had is still there
    expect(quiet.types()).toEqual(['tunnel.created', 'tunnel.updated']);
  });

  it('brings each of 200 changes once and in order, although the backends that serve the stream are killed', async () => {
    const user = await plane.newUser(2);
    const tunnels = await Promise.all([0, 1, 2, 3].map(() => openTunnel(user.at(plane.url(2)))));
    // somebody else's events lie between
    const other = await plane.newUser(2);
    const foreign = await openTunnel(other);
    let stream = await open(user.at(plane.url(0)));
    const seen: string[] = [];
    let kills = 0;
    const change = async () => {
      for (let i = 0; i < 50; i++) {
        await Promise.all([
          ...tunnels.map(({ id }, n) => user.at(plane.url(2)).patch(`/api/v1/tunnels/${id}`, { name: `t${n}-${i}` })),
          other.patch(`/api/v1/tunnels/${foreign.id}`, { name: `other-${i}` }),
        ]);
      }
    };
    const follow = async () => {
      while (seen.length < 200) {
        await until(() => stream.ended || stream.events.length > 0, 'something happens');
        seen.push(...stream.events.splice(0).map(({ id }) => String(id)));
        if (kills < 2 && seen.length > 50 * (kills + 1)) {
          const i = kills++ % 2;
          await plane.killAndRestart(i);
          await until(() => stream.ended, 'the stream breaks');
          seen.push(...stream.events.splice(0).map(({ id }) => String(id)));
          stream = await open(user.at(plane.url(i + 1)), '/api/v1/events', stream.lastEventId);
        }
      }
    };
    await Promise.all([change(), follow()]);
    expect(kills).toBe(2);
    const written = await plane.database.query(
      `SELECT id::text FROM events WHERE tunnel_id = ANY ($1) AND type = 'tunnel.updated' ORDER BY events.id`,
      [tunnels.map(({ id }) => id)],
    );
    expect(written).toHaveLength(200);
    expect(seen).toEqual(written.map(({ id }) => id));
  });

  it('replays more than memory should hold, page by page', async () => {
    const user = await plane.newUser();
    const { id } = await openTunnel(user);
    const { id: userId } = (await user.get('/api/v1/auth/me')).body;
    const [{ high } = {}] = await plane.database.query('SELECT max(id)::int AS high FROM events');
    await plane.database.query(
      `INSERT INTO events (user_id, tunnel_id, type, at, data) SELECT $1, $2, 'tunnel.updated', now(), '{}' FROM generate_series(1, 2345)`,
      [userId, id],
    );
    const stream = await open(user, '/api/v1/events', String(high));
    await stream.received(2345);
    await user.patch(`/api/v1/tunnels/${id}`, { name: 'last' });
    await stream.received(2346);
    const ids = idsOf(stream);
    expect(new Set(ids).size).toBe(2346);
    expect(ids).toEqual([...ids].sort((a, b) => a - b));
  });
});

describe('a user', () => {
  it('sees their own events and nobody else’s, whatever two of them do', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({ who: fc.nat(1), at: fc.nat(2), what: fc.constantFrom('open', 'rename', 'close', 'come', 'go') }),
          { minLength: 5, maxLength: 30 },
        ),
        async (history) => {
          const users = await Promise.all([plane.newUser(0), plane.newUser(1)]);
          const [a, b] = await Promise.all(users.map((user, i) => open(user.at(plane.url(i + 1)))));
          const own: { id: string; token: string; port: number }[][] = [[], []];
          let names = 0;
          for (const { who, at, what } of history) {
            const user = users[who]?.at(plane.url(at));
            const mine = own[who];
            if (!user || !mine) throw new Error('no such user');
            const tunnel = mine.at(-1);
            if (what === 'open' || !tunnel) mine.push(await openTunnel(user));
            else if (what === 'rename') await user.patch(`/api/v1/tunnels/${tunnel.id}`, { name: `n${names++}` });
            else if (what === 'close') await user.delete(`/api/v1/tunnels/${mine.pop()?.id}`);
            else if (what === 'come') await server.authorize(tunnel.token, tunnel.port);
            else await server.beat({});
          }
          for (const [i, stream] of [a, b].entries()) {
            const { id } = (await users[i]?.get('/api/v1/auth/me'))?.body ?? {};
            const written = await plane.database.query('SELECT id::int FROM events WHERE user_id = $1 ORDER BY id', [
              id,
            ]);
            if (!stream) throw new Error('no stream');
            await stream.received(written.length);
            expect(idsOf(stream)).toEqual(written.map((row) => row['id']));
            stream.close();
          }
        },
      ),
      { numRuns: 5 },
    );
  });

  it('who has logged out, lost their key or is suspended has no stream any more, within seconds', async () => {
    const [leaver, keyOwner, suspect, other] = await Promise.all([0, 1, 2, 3].map((i) => plane.newUser(i)));
    const admin = await plane.admin();
    if (!leaver || !keyOwner || !suspect || !other) throw new Error('no users');
    const key = (await keyOwner.post('/api/v1/auth/api-keys', { name: 'stream', scopes: ['tunnels:read'] })).body;
    const { id } = (await suspect.get('/api/v1/auth/me')).body;
    const [left, revoked, suspended, stays, keyless] = await Promise.all([
      open(leaver),
      open(keyOwner.withToken(key.key).at(plane.url(1))),
      open(suspect.at(plane.url(1))),
      open(other),
      open(keyOwner),
    ]);
    expect([left, revoked, suspended, stays, keyless].map(({ status }) => status)).toEqual(Array(5).fill(200));
    await leaver.at(plane.url(2)).post('/api/v1/auth/logout', undefined);
    await keyOwner.delete(`/api/v1/auth/api-keys/${key.id}`);
    await admin.patch(`/api/v1/admin/users/${id}`, { suspended: { reason: 'spam' } });
    for (const stream of [left, revoked, suspended]) {
      await until(() => stream.ended, 'the stream ends', 10_000);
      expect(stream.events.at(-1)).toEqual({ id: undefined, event: 'end', data: { code: 'UNAUTHENTICATED' } });
    }
    expect([stays.ended, keyless.ended]).toEqual([false, false]);
  });

  it('keeps a stream beyond the access token that it was opened with: its login is what counts', async () => {
    const user = await plane.newUser();
    const token = String(user.headers['authorization']).replace('Bearer ', '');
    // the same login's token, near its end
    const claims = jwt.decode(token, { json: true });
    const soon = jwt.sign({ ...claims, exp: Math.ceil(Date.now() / 1000) + 2 }, SECRETS.JWT_SECRET, {
      header: { alg: 'HS256', typ: 'at+jwt' },
    });
    const shortly = user.withToken(soon);
    const stream = await open(shortly);
    expect(stream.status).toBe(200);
    await until(async () => (await shortly.get('/api/v1/auth/me')).status === 401, 'the token expires');
    // two keep-alives: a look at the logins lies between
    const { comments } = stream;
    await until(() => stream.comments >= comments + 2, 'keep-alives', 30_000);
    expect(stream.ended).toBe(false);
  });
});

describe('GET tunnels/:id/events', () => {
  it('lists what happened, newest first, page by page', async () => {
    const user = await plane.newUser();
    const tunnel = await openTunnel(user);
    for (let i = 0; i < 4; i++) await user.patch(`/api/v1/tunnels/${tunnel.id}`, { name: `n${i}` });
    await user.delete(`/api/v1/tunnels/${tunnel.id}`);
    const types: string[] = [];
    for (let cursor = ''; ;) {
      const { body } = await user.get(`/api/v1/tunnels/${tunnel.id}/events?limit=4${cursor}`);
      types.push(...body.items.map(({ type }: { type: string }) => type));
      if (!body.nextCursor) break;
      cursor = `&cursor=${body.nextCursor}`;
    }
    expect(types).toEqual(['tunnel.closed', ...Array(4).fill('tunnel.updated'), 'tunnel.created']);
    const wrong = await user.get(`/api/v1/tunnels/${tunnel.id}/events?cursor=abc`);
    expect(wrong).toMatchObject({ status: 400, body: { code: 'VALIDATION_FAILED' } });
  });
});
