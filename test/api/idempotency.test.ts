/** `Idempotency-Key`: what creates something is done once, however often it is sent, and to whichever backend. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { until } from '../harness/until.js';
import { ControlPlane } from './control-plane.js';
import type { PlaneClient } from './plane-client.js';
import { inTransaction, somebodyWaits } from './transaction.js';

let plane: ControlPlane;
let server: PlaneClient;
let user: Api;

beforeAll(async () => {
  plane = await ControlPlane.start({ backends: 2, env: { HOUSEKEEPING_INTERVAL_MS: '100' } });
  server = await plane.newServer('s1', 10_000, 1_000);
});

afterAll(() => plane?.stop());

beforeEach(async () => {
  user = await plane.newUser();
});

const open = (key: string, body: object = {}, as = user) =>
  as.send('POST', '/api/v1/tunnels', JSON.stringify(body), {
    'content-type': 'application/json',
    'idempotency-key': key,
  });
const tunnelsOf = async (as = user) => (await as.get('/api/v1/tunnels?limit=100&state=all')).body.items;

describe('a request under an Idempotency-Key', () => {
  it('is answered once more with its first answer, token and all, whatever the order of its members', async () => {
    const first = await open('k', { name: 'a', labels: { x: '1', y: '2' } });
    expect(first.status).toBe(201);
    expect(first.headers.get('idempotency-replayed')).toBeNull();
    const again = await open('k', { labels: { y: '2', x: '1' }, name: 'a' }, user.at(plane.url(1)));
    expect(again).toMatchObject({ status: 201, body: first.body });
    expect(again.headers.get('idempotency-replayed')).toBe('true');
    expect(again.headers.get('cache-control')).toBe('no-store');
    expect(await tunnelsOf()).toHaveLength(1);
    expect((await server.authorize(again.body.token, 0)).status).toBe(200);
    const [row] = await plane.database.query(
      `SELECT encode(sealed_answer, 'escape') || encode(sealed_secret, 'escape') AS kept FROM idempotency_keys WHERE resource_id = $1`,
      [first.body.id],
    );
    expect(String(row?.['kept']).length).toBeGreaterThan(100);
    expect(row?.['kept']).not.toContain(first.body.token);
  });

  it('opens one tunnel when it comes 50 times at once to two backends, and all answers are equal', async () => {
    const users = [user, user.at(plane.url(1))];
    const answers = await Promise.all(Array.from({ length: 50 }, (_, i) => open('many', { name: 'm' }, users[i % 2])));
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 50 }, () => 201));
    expect(new Set(answers.map(({ text }) => text)).size).toBe(1);
    expect(await tunnelsOf()).toHaveLength(1);
  });

  it('is refused with another body, and is another one for another user', async () => {
    const first = await open('k', { name: 'a' });
    expect(await open('k', { name: 'b' })).toMatchObject({ status: 422, body: { code: 'IDEMPOTENCY_KEY_REUSED' } });
    const other = await plane.newUser();
    const theirs = await open('k', { name: 'b' }, other);
    expect(theirs.status).toBe(201);
    expect(theirs.body.id).not.toBe(first.body.id);
    expect(await tunnelsOf(other)).toHaveLength(1);
  });

  it('releases its key when it is refused', async () => {
    await open('first', { name: 'taken' });
    expect(await open('k', { name: 'taken' })).toMatchObject({ status: 409, body: { code: 'NAME_TAKEN' } });
    expect(await open('k', { name: 'Not a name' })).toMatchObject({ status: 400 });
    expect((await open('k', { name: 'free' })).status).toBe(201);
  });

  it.each(['', 'with space', 'ü', 'x'.repeat(256)])('is refused under the key %j', async (key) => {
    // fetch sends bytes: ü is one of them
    expect(await open(key)).toMatchObject({ status: 400, body: { code: 'VALIDATION_FAILED' } });
    expect(await tunnelsOf()).toEqual([]);
  });

  it('is refused when it is nested as no request of ours is', async () => {
    const deep = `{"name":${'['.repeat(20_000)}${']'.repeat(20_000)}}`;
    const answer = await user.send('POST', '/api/v1/tunnels', deep, {
      'content-type': 'application/json',
      'idempotency-key': 'deep',
    });
    expect(answer.status).toBe(400);
  });
});

describe('a backend that is killed', () => {
  it.each([
    ['before it kept the answer', true],
    ['while it kept the answer', false],
  ])('after the tunnel is open, %s: the request repeated elsewhere has the same tunnel', async (_, terminate) => {
    const lost = inTransaction(plane.database, async (admission) => {
      await admission.query('SELECT lock_capacity()');
      const answer = open('crash', { name: 'survivor' }).catch(() => undefined);
      // and not a job of housekeeping, which waits here too
      const claimed = `SELECT FROM idempotency_keys WHERE key = 'crash' AND sealed_answer IS NULL`;
      await until(async () => (await plane.database.query(claimed)).length === 1, 'the key is claimed');
      await somebodyWaits(plane.database);
      await inTransaction(plane.database, async (answering) => {
        // it will keep its answer only behind us
        expect((await answering.query(`${claimed} FOR UPDATE`)).rowCount).toBe(1);
        await admission.query('COMMIT');
        const opened = `SELECT FROM tunnels WHERE name = 'survivor' AND state <> 'closed'`;
        await until(async () => (await plane.database.query(opened)).length === 1, 'the tunnel is open');
        await somebodyWaits(plane.database);
        await plane.backends[0]?.kill9();
        if (terminate) {
          await answering.query(
            `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
          );
        }
      });
      expect(await answer).toBeUndefined();
    });
    await lost;
    const repeated = await open('crash', { name: 'survivor' }, user.at(plane.url(1)));
    expect(repeated.status).toBe(201);
    const [only, ...more] = await plane.database.query(
      `SELECT id FROM tunnels WHERE name = 'survivor' AND state <> 'closed'`,
    );
    expect(more).toEqual([]);
    expect(repeated.body.id).toBe(only?.['id']);
    expect((await open('crash', { name: 'survivor' }, user.at(plane.url(1)))).text).toBe(repeated.text);
    await plane.killAndRestart(0);
    expect((await server.authorize(repeated.body.token, repeated.body.port)).status).toBe(200);
    await user.delete(`/api/v1/tunnels/${repeated.body.id}`);
  });
});

describe('a request that goes on', () => {
  it('is waited for, and then the key is said to be in use', async () => {
    await open('busy', { name: 'b' });
    await plane.database.query(
      `UPDATE idempotency_keys SET sealed_answer = NULL, claimed_until = now() + interval '1 hour' WHERE key = 'busy'`,
    );
    const answer = await open('busy', { name: 'b' });
    expect(answer).toMatchObject({ status: 409, body: { code: 'IDEMPOTENCY_KEY_IN_USE', retryAfter: 1 } });
    expect(answer.headers.get('retry-after')).toBe('1');
  });
});

describe('keys', () => {
  it('are forgotten after a day, and so is the oldest of a thousand', async () => {
    const [, id] = await Promise.all([open('old'), open('bounded')]).then((answers) =>
      answers.map(({ body }) => body.id),
    );
    const [owner] = await plane.database.query('SELECT user_id FROM tunnels WHERE id = $1', [id]);
    await plane.database.query(
      `INSERT INTO idempotency_keys (user_id, route, key, body_hash, resource_id, sealed_secret, claim_id, claimed_until, created_at)
       SELECT $1, 'r', 'k' || n, '', gen_random_uuid(), '', gen_random_uuid(), now(), now() - interval '1 hour' - n * interval '1 s'
       FROM generate_series(1, 1000) n`,
      [owner?.['user_id']],
    );
    const count = async (key: string) =>
      (
        await plane.database.query('SELECT FROM idempotency_keys WHERE user_id = $1 AND key = $2', [
          owner?.['user_id'],
          key,
        ])
      ).length;
    // a thousand and two: one goes, and it is the 999th of those that are not at work
    await open('one-more');
    expect(await count('k1')).toBe(1);
    const [total] = await plane.database.query('SELECT count(*)::int AS n FROM idempotency_keys WHERE user_id = $1', [
      owner?.['user_id'],
    ]);
    expect(total?.['n']).toBe(1002);
    await plane.database.query(
      `UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE user_id = $1 AND key = 'old'`,
      [owner?.['user_id']],
    );
    await until(async () => (await count('old')) === 0, 'the old one is forgotten');
    expect(await count('bounded')).toBe(1);
  });
});

describe('keys and servers', () => {
  it.each([
    ['an API key', '/api/v1/auth/api-keys', { name: 'ci', scopes: ['tunnels:read'] }],
    ['a server', '/api/v1/admin/servers', { id: 'announced-once', host: 'bore.example.com', location: 'eu' }],
  ])('%s is created once, also when the backend died after it was', async (_, path, body) => {
    const admin = await plane.admin();
    const create = (key: string, what: object = body) =>
      admin.send('POST', path, JSON.stringify(what), { 'content-type': 'application/json', 'idempotency-key': key });
    const [first, ...others] = await Promise.all(Array.from({ length: 5 }, () => create('once')));
    expect(first?.status).toBe(201);
    for (const other of others) expect(other.text).toBe(first?.text);
    // as it is left by a backend that has created it and not answered
    await plane.database.query(
      `UPDATE idempotency_keys SET sealed_answer = NULL, claimed_until = now() WHERE key = 'once' AND route LIKE $1`,
      [`%${path}`],
    );
    const again = await create('once');
    expect({ status: again.status, body: again.body }).toEqual({ status: 201, body: first?.body });
    expect(await create('once', { ...body, ...('name' in body ? { name: 'x' } : { location: 'x' }) })).toMatchObject({
      status: 422,
      body: { code: 'IDEMPOTENCY_KEY_REUSED' },
    });
  });
});
