/** Each metric of a backend changes when what it measures happens, by as much as it happened. */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { ControlPlane } from '../api/control-plane.js';
import type { PlaneClient } from '../api/plane-client.js';
import type { Api } from '../harness/api.js';
import { startBackend } from '../harness/backend.js';
import { EventStream } from '../harness/event-stream.js';
import { type Scrape, scrape } from '../harness/metrics.js';
import { until } from '../harness/until.js';

/** The measuring job runs three times in 600 ms here, and what it wrote is read every 2 s. */
const MEASURED_MS = 15_000;
const ENV = { PLAN_FREE_TUNNELS: '3', HOUSEKEEPING_INTERVAL_MS: '200', LOGIN_FAILURES_PER_MINUTE: '3' };

let plane: ControlPlane;
let server: PlaneClient;
let user: Api;

beforeAll(async () => {
  plane = await ControlPlane.start({ env: ENV });
  server = await plane.newServer('m1', 10_000, 10);
  user = await plane.newUser();
});

afterAll(() => plane?.stop());

const now = (): Promise<Scrape> => scrape(plane.url());
/** By how much a sum of samples has grown while something happened. */
async function growth(work: () => Promise<unknown>, of: [name: string, labels?: Record<string, string>][]) {
  const before = await now();
  await work();
  const after = await now();
  return of.map(([name, labels]) => after.sum(name, labels) - before.sum(name, labels));
}
const open = (body: object, api = user) => api.post('/api/v1/tunnels', body);

it('figures of the fleet that a clock has dated into the future are measured anew', async () => {
  const isThere = async () => (await plane.database.query('SELECT FROM fleet_figures')).length > 0;
  await until(isThere, 'they are measured', MEASURED_MS);
  await plane.database.query(`UPDATE fleet_figures SET measured_at = now() + interval '1 day'`);
  const ahead = `SELECT FROM fleet_figures WHERE measured_at > now() + interval '1 hour'`;
  await until(async () => (await plane.database.query(ahead)).length === 0, 'they are of now', MEASURED_MS);
});

describe('requests', () => {
  it('have rate, errors and duration by route, for every route of the API', async () => {
    const { paths } = JSON.parse(readFileSync(new URL('../../openapi.json', import.meta.url), 'utf8'));
    const routes = Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(Object(methods)).map((method) => ({ method: method.toUpperCase(), path })),
    );
    expect(routes.length).toBeGreaterThan(50);
    for (const { method, path } of routes) {
      const route = path.replace(/\{(\w+)\}/g, ':$1');
      const before = await now();
      const { status } = await user.send(method, path.replace(/\{\w+\}/g, randomUUID()));
      // a stream has no duration; it is counted when it has ended, which its client did
      if (path === '/api/v1/events' || path === '/api/v1/events/status') continue;
      const grown = async () => {
        const after = await now();
        const of = (name: string, labels: object = {}) =>
          after.sum(name, { method, route, ...labels }) - before.sum(name, { method, route, ...labels });
        return {
          requests: of('http_requests_total', { status: String(status) }),
          durations: of('http_request_duration_seconds_count'),
          seconds: of('http_request_duration_seconds_sum'),
        };
      };
      // the answer is here before its sender has counted it
      await until(async () => (await grown()).requests > 0, `${method} ${path} is counted`);
      expect(await grown()).toEqual({ requests: 1, durations: 1, seconds: expect.any(Number) });
      expect((await grown()).seconds).toBeGreaterThan(0);
      if (path === '/api/v1/auth/logout' || path === '/api/v1/auth/logout-all') user = await plane.newUser();
    }
  });

  it('are in flight while they are answered, and not when their caller has left', async () => {
    // the scrape itself is one
    await until(async () => (await now()).value('http_requests_in_flight') === 1, 'nothing else is in flight');
    const streams = [await EventStream.open(user), await EventStream.open(user)];
    const during = await now();
    expect(during.value('http_requests_in_flight')).toBe(3);
    expect(during.value('bore_event_streams')).toBe(2);
    expect(during.value('bore_event_streams_max')).toBe(2000);
    for (const stream of streams) stream.close();
    await until(async () => (await now()).value('http_requests_in_flight') === 1, 'both are gone');
    await until(async () => (await now()).value('bore_event_streams') === 0, 'their streams are gone');
  });
});

describe('admissions', () => {
  it('are counted by what was decided', async () => {
    const outcomes = ['granted', 'name_taken', 'port_taken', 'port_out_of_range', 'quota_exceeded', 'failed'];
    const statuses: number[] = [];
    const ask = async () => {
      for (const body of [{ name: 'a', port: 10_001 }, { name: 'a' }, { port: 10_001 }, { port: 9 }, {}, {}, {}, {}])
        statuses.push((await open(body)).status);
    };
    const grown = await growth(
      ask,
      outcomes.map((outcome) => ['bore_tunnel_admissions_total', { outcome }]),
    );
    expect(statuses).toEqual([201, 409, 409, 422, 201, 201, 429, 429]);
    expect(grown).toEqual([3, 1, 1, 1, 2, 0]);
  });

  it('leave a mark on the fleet’s figures, and so does their end', async () => {
    const shown = async (state: object) =>
      until(
        async () => {
          const at = await now();
          const figures = {
            pending: at.value('bore_tunnels', { state: 'pending' }),
            active: at.value('bore_tunnels', { state: 'active' }),
            online: at.value('bore_servers', { state: 'online' }),
            total: at.value('bore_capacity_total'),
            percent: at.value('bore_capacity_utilization_percent'),
            ofServer: at.value('bore_server_tunnels', { server: 'm1' }),
            serverMax: at.value('bore_server_capacity', { server: 'm1' }),
            here: at.value('bore_location_tunnels', { location: 'default' }),
            hereMax: at.value('bore_location_capacity', { location: 'default' }),
          };
          return JSON.stringify(figures) === JSON.stringify(state) ? figures : undefined;
        },
        `the figures are ${JSON.stringify(state)}`,
        MEASURED_MS,
      );
    const [tunnel] = (await user.get('/api/v1/tunnels')).body.items;
    const full = { online: 1, total: 10, percent: 30, ofServer: 3, serverMax: 10, here: 3, hereMax: 10 };
    await shown({ pending: 3, active: 0, ...full });
    const token = (await user.post(`/api/v1/tunnels/${tunnel.id}/token`, undefined)).body.token;
    expect((await server.authorize(token, tunnel.port)).status).toBe(200);
    await shown({ pending: 2, active: 1, ...full });
    await user.delete(`/api/v1/tunnels/${tunnel.id}`);
    await shown({ pending: 2, active: 0, ...full, percent: 20, ofServer: 2, here: 2 });
    expect((await now()).value('bore_fleet_sample_age_seconds')).toBeLessThan(MEASURED_MS / 1000);
  });
});

describe('logins and limits', () => {
  const login = (email: string, password: string) => user.post('/api/v1/auth/login', { email, password });
  const LOGINS: [string, Record<string, string>][] = ['succeeded', 'refused', 'suspended', 'limited', 'failed'].map(
    (outcome) => ['bore_logins_total', { outcome }],
  );

  it('are counted by what they came to; guesses at one account are a limit of their own', async () => {
    const { email } = (await user.get('/api/v1/auth/me')).body;
    expect(await growth(() => login(email, 'correct horse battery'), LOGINS)).toEqual([1, 0, 0, 0, 0]);
    const guess = async () => {
      for (let i = 0; i < 5; i++) await login(email, `wrong horse battery ${i}`);
    };
    const limited: [string, Record<string, string>] = ['bore_rate_limited_total', { limit: 'account' }];
    expect(await growth(guess, [...LOGINS, limited])).toEqual([0, 3, 0, 2, 0, 2]);
    const other = (await (await plane.newUser()).get('/api/v1/auth/me')).body.email;
    await plane.database.query('UPDATE users SET suspended_at = now() WHERE email = $1', [other]);
    expect(await growth(() => login(other, 'correct horse battery'), LOGINS)).toEqual([0, 0, 1, 0, 0]);
  });

  it('of users and addresses are counted by their name', async () => {
    const strict = await startBackend({ database: plane.database, env: { ...ENV, RATE_LIMIT_PER_MINUTE: '5' } });
    const statuses: number[] = [];
    for (let i = 0; i < 7; i++) statuses.push((await user.at(strict.url).get('/api/v1/auth/me')).status);
    for (let i = 0; i < 8; i++) statuses.push((await fetch(`${strict.url}/api/v1/auth/me`)).status);
    for (let i = 0; i < 2; i++) statuses.push((await fetch(`${strict.url}/api/openapi.json`)).status);
    const at = await scrape(strict.url);
    expect(statuses.filter((status) => status === 429)).toHaveLength(2 + 3 + 2);
    const limited = (limit: string) => at.value('bore_rate_limited_total', { limit });
    expect([limited('user'), limited('address'), limited('office'), limited('login')]).toEqual([2, 5, 0, 0]);
    await strict.stop();
  });

  it('show the hashes under way, and those that wait', async () => {
    let most = { running: 0, waiting: 0 };
    let busy = true;
    const signups = Promise.all(Array.from({ length: 30 }, () => plane.newUser())).finally(() => (busy = false));
    while (busy) {
      const at = await now();
      const of = (state: string) => at.value('bore_password_hashes', { state }) ?? NaN;
      most = { running: Math.max(most.running, of('running')), waiting: Math.max(most.waiting, of('waiting')) };
    }
    await signups;
    expect(most.running).toBe(2);
    expect(most.waiting).toBeGreaterThan(2);
    expect((await now()).sum('bore_password_hashes')).toBe(0);
  });
});

describe('a full fleet', () => {
  it('refuses, and the refusal is counted', async () => {
    const refused: [string, Record<string, string>] = ['bore_tunnel_admissions_total', { outcome: 'no_capacity' }];
    const others = [await plane.newUser(), await plane.newUser(), await plane.newUser()];
    const statuses: number[] = [];
    const fill = async () => {
      for (const other of others) for (let i = 0; i < 3; i++) statuses.push((await open({}, other)).status);
    };
    // two of the ten are open already
    expect(await growth(fill, [refused])).toEqual([1]);
    expect(statuses).toEqual([201, 201, 201, 201, 201, 201, 201, 201, 503]);
  });
});

describe('reports, breakers and jobs', () => {
  it('are booked, repeated or refused', async () => {
    const [{ id }] = (await user.get('/api/v1/tunnels')).body.items;
    const reporterId = randomUUID();
    const usage = [{ tunnelId: id, bytesIn: 1, bytesOut: 2, connections: 1 }];
    const report = { reporterId, sequence: 1, usage, connections: [] };
    const other = await plane.newServer('m2', 11_000, 10);
    const outcomes = (work: () => Promise<unknown>) =>
      growth(
        work,
        ['booked', 'repeated', 'refused'].map((outcome) => ['bore_usage_reports_total', { outcome }]),
      );
    expect(await outcomes(() => server.beat({ report }))).toEqual([1, 0, 0]);
    expect(await outcomes(() => server.beat({ report }))).toEqual([0, 1, 0]);
    expect(await outcomes(() => other.beat({ report: { ...report, sequence: 2 } }))).toEqual([0, 0, 1]);
    expect(await outcomes(() => server.beat())).toEqual([0, 0, 0]);
  });

  it('a breaker opens, and is shown under its server’s name', async () => {
    const breaker = async () => (await now()).value('bore_circuit_breaker_state', { server: 'm1' });
    const rotate = async () => {
      const [{ id }] = (await user.get('/api/v1/tunnels')).body.items;
      await user.post(`/api/v1/tunnels/${id}/token`, undefined);
    };
    await rotate();
    expect(await breaker()).toBe(0);
    server.unreachable = true;
    for (let i = 0; i < 3; i++) await rotate();
    expect(await breaker()).toBe(2);
    server.unreachable = false;
    await until(async () => (await breaker()) === 0, 'it closes', 20_000);
  });

  it('of the queue complete, and fail where they fail', async () => {
    const jobs = async (task: string, outcome: string) =>
      (await now()).value('bore_jobs_total', { task, outcome }) ?? NaN;
    const before = await jobs('measure-fleet', 'completed');
    await until(async () => (await jobs('measure-fleet', 'completed')) > before + 1, 'it is measured', MEASURED_MS);
    expect((await now()).sum('bore_job_duration_seconds_count', { task: 'measure-fleet' })).toBeGreaterThan(before);
    await until(
      async () => (await now()).value('bore_queue_up', { queue: 'housekeeping' }) === 1,
      'the queue is seen to work',
    );
    expect(await jobs('forget-old-records', 'failed')).toBe(0);
    await plane.database.query('ALTER TABLE port_quarantine RENAME TO elsewhere');
    await until(async () => (await jobs('forget-old-records', 'failed')) > 0, 'a job fails', MEASURED_MS);
    await plane.database.query('ALTER TABLE elsewhere RENAME TO port_quarantine');
    const failed = { queue: 'housekeeping', state: 'failed' };
    await until(async () => ((await now()).value('bore_queue_jobs', failed) ?? 0) > 0, 'the queue has it', MEASURED_MS);
  });
});
