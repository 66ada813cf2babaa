/** A database, or a backend, that stops answering without saying so. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { expectAtBest } from '../harness/at-best.js';
import { type Backend, SECRETS, startBackend } from '../harness/backend.js';
import { OwnPostgres } from '../harness/own-postgres.js';
import { until } from '../harness/until.js';
import { PlaneClient } from './plane-client.js';

let postgres: OwnPostgres;
let backends: Backend[] = [];
let server: PlaneClient;
let token = '';

beforeAll(async () => {
  postgres = await OwnPostgres.start();
  const env = {
    PLAN_FREE_TUNNELS: '1000',
    RESERVED_CAPACITY_PERCENT: '0',
    SERVER_LEASE_SECONDS: '600',
    // a job of the backend that is paused would wait for the lock beside its request
    HOUSEKEEPING_INTERVAL_MS: '60000',
  };
  backends = await Promise.all([0, 1].map(() => startBackend({ database: postgres, env })));
  server = new PlaneClient(at(0), SECRETS.INTERNAL_API_KEY, 's1', { min: 10_000, max: 10_999 });
  await server.register({ maxTunnels: 1_000 });
  const account = { email: 'a@example.com', password: 'correct horse battery' };
  token = (await new Api(at(0)).post('/api/v1/auth/signup', account)).body.accessToken;
});

afterAll(async () => {
  server?.close();
  for (const backend of backends) {
    backend.signal('SIGCONT');
    await backend.kill9();
  }
  await postgres?.drop();
});

const at = (i: number) => backends[i]?.url ?? '';
const user = (i: number) => new Api(at(i)).withToken(token);

describe('a backend that is paused in the middle of a transaction', () => {
  it('loses the lock that all admissions wait for; the others go on', async () => {
    const { id } = (await user(0).post('/api/v1/tunnels', {})).body;
    // it closes a tunnel, waits for the tunnel's row with the lock of all admissions in hand, and stops
    const row = await postgres.hold('BEGIN', `SELECT FROM tunnels WHERE id = '${id}' FOR UPDATE`);
    const closing = user(0).delete(`/api/v1/tunnels/${id}`);
    await until(async () => {
      const [waiting] = await postgres.query(
        `SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name = 'bore-backend' AND wait_event_type = 'Lock'`,
      );
      return waiting?.['n'];
    }, 'the closing waits');
    backends[0]?.signal('SIGSTOP');
    await row.release();
    const began = performance.now();
    const [opened, read] = await Promise.all([user(1).post('/api/v1/tunnels', {}), user(1).get('/api/v1/auth/me')]);
    expect(read.status).toBe(200);
    expect(opened.status).toBe(201);
    expect(performance.now() - began).toBeGreaterThan(1_000);
    expect(performance.now() - began).toBeLessThan(6_000);
    backends[0]?.signal('SIGCONT');
    // it lost its transaction, and says so
    expect((await closing).status).toBe(503);
    expect((await user(0).delete(`/api/v1/tunnels/${id}`)).status).toBe(204);
  });

  it('keeps nobody waiting longer than the lock is worth: 503, and reads go on', async () => {
    const lock = await postgres.hold('BEGIN', 'SELECT lock_capacity()');
    const began = performance.now();
    const answers = await Promise.all(Array.from({ length: 8 }, () => user(1).post('/api/v1/tunnels', {})));
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 503));
    expect(performance.now() - began).toBeLessThan(8_000);
    expect((await user(1).get('/api/v1/auth/me')).status).toBe(200);
    await lock.release();
    expect((await user(1).post('/api/v1/tunnels', {})).status).toBe(201);
  });
});

describe('the lock of events, which every commit of a change takes', () => {
  it('keeps nobody waiting longer than it is worth either: 503, nothing is done, and reads go on', async () => {
    const { id } = (await user(1).post('/api/v1/tunnels', {})).body;
    const before = (await user(1).get('/api/v1/tunnels')).body.items.length;
    const lock = await postgres.hold('BEGIN', `SELECT pg_advisory_xact_lock(hashtext('bore-platform.events'))`);
    await expectAtBest(8_000, async () => {
      const began = performance.now();
      const answers = await Promise.all([
        user(1).post('/api/v1/tunnels', {}),
        user(0).patch(`/api/v1/tunnels/${id}`, { name: 'late' }),
        user(1).delete(`/api/v1/tunnels/${id}`),
      ]);
      expect(answers.map(({ status, body }) => [status, body.code])).toEqual(answers.map(() => [503, 'UNAVAILABLE']));
      return performance.now() - began;
    });
    const { items } = (await user(1).get('/api/v1/tunnels')).body;
    expect(items.length).toBe(before);
    expect((await user(0).get(`/api/v1/tunnels/${id}`)).body).toMatchObject({ name: null, state: 'pending' });
    await lock.release();
    expect((await user(0).delete(`/api/v1/tunnels/${id}`)).status).toBe(204);
  });
});

describe('a PostgreSQL that is silent', () => {
  it('is an outage with an end: 503, and everything works again when it speaks', async () => {
    expect((await user(0).get('/api/v1/auth/me')).status).toBe(200);
    await postgres.freeze();
    const began = performance.now();
    const answers = await Promise.all([user(0).get('/api/v1/auth/me'), user(0).post('/api/v1/tunnels', {})]);
    expect(answers.map(({ status, body }) => [status, body.code])).toEqual([
      [503, 'UNAVAILABLE'],
      [503, 'UNAVAILABLE'],
    ]);
    expect(performance.now() - began).toBeLessThan(20_000);
    await postgres.thaw();
    await until(async () => (await user(0).get('/api/v1/auth/me')).status === 200, 'it works again', 20_000);
  });
});
