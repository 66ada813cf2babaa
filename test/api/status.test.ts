/** The public status: what it says, what it keeps to itself, and that it answers when nothing else does. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { type Backend, SECRETS, startBackend } from '../harness/backend.js';
import { heldUp } from '../harness/held-up.js';
import { OwnPostgres } from '../harness/own-postgres.js';
import { OwnRedis, redisMissing } from '../harness/own-redis.js';
import { until } from '../harness/until.js';
import { PlaneClient } from './plane-client.js';

const ROUTE = '/api/v1/system/status';
/** A look is ten seconds old at most, two after a failure; and the machine is busy. */
const SEEN_MS = 25_000;
const KEPT = 'public, max-age=10';
const KEPT_BRIEFLY = 'public, max-age=2';

let postgres: OwnPostgres;
let backend: Backend;
let api: Api;
const servers: PlaneClient[] = [];

beforeAll(async () => {
  postgres = await OwnPostgres.start();
  backend = await startBackend({
    database: postgres,
    env: { SERVER_LEASE_SECONDS: '600', RESERVED_CAPACITY_PERCENT: '0', PLAN_FREE_TUNNELS: '100' },
  });
  api = new Api(backend.url);
});

afterAll(async () => {
  for (const server of servers) server.close();
  await backend?.kill9();
  await postgres?.drop();
});

async function register(id: string, location: string, min: number): Promise<void> {
  const server = new PlaneClient(backend.url, SECRETS.INTERNAL_API_KEY, id, { min, max: min + 9 });
  servers.push(server);
  await server.register({ location, maxTunnels: 2 });
}
const show = async () => {
  const { status, body, headers } = await api.get(ROUTE);
  if (status !== 200) throw new Error(`answered ${status}`);
  return { ...body, kept: headers.get('cache-control') };
};
const seen = (what: string, isSo: (view: Awaited<ReturnType<typeof show>>) => boolean) =>
  until(
    async () => {
      const view = await show();
      return isSo(view) && view;
    },
    what,
    SEEN_MS,
  );
const lose = (id: string) =>
  postgres.query(`UPDATE servers SET lease_until = now() - interval '1 second' WHERE id = $1`, [id]);

describe('GET system/status', () => {
  it('says that nothing carries tunnels while there is no server', async () => {
    const view = await seen('nothing is there', ({ status }) => status === 'major_outage');
    expect(view).toMatchObject({
      components: { api: 'operational', tunnels: 'major_outage', dataPlane: 'major_outage' },
      locations: [],
      kept: KEPT,
    });
  });

  it('is by component and location, and nothing tells how large it is or where', async () => {
    await register('secret-name-1', 'eu', 21_300);
    await register('secret-name-2', 'eu', 21_310);
    await register('secret-name-3', 'us', 21_320);
    const view = await seen(
      'all is well',
      ({ status, locations }) => status === 'operational' && locations.length === 2,
    );
    const { checkedAt, ...rest } = view;
    expect(Date.now() - Date.parse(checkedAt)).toBeLessThan(60_000);
    const up = 'operational';
    expect(rest).toEqual({
      status: up,
      components: { api: up, tunnels: up, dataPlane: up, events: up, jobs: up },
      locations: [
        { location: 'eu', state: up },
        { location: 'us', state: up },
      ],
      kept: KEPT,
    });
    const { text } = await api.get(ROUTE);
    expect(text).not.toMatch(/secret-name|127\.0|\d{5}|192\.0/);
  });

  it('says what is lost where, and that a system that is full takes no tunnels', { timeout: 120_000 }, async () => {
    const user = new Api(backend.url);
    const account = { email: 'a@example.com', password: 'correct horse battery' };
    const { body } = await user.post('/api/v1/auth/signup', account);
    for (let i = 0; i < 6; i++) await user.withToken(body.accessToken).post('/api/v1/tunnels', {});
    await lose('secret-name-1');
    await seen('half of a location is lost, and all is taken', ({ status, components, locations }) => {
      const [eu] = locations;
      return (
        status === 'partial_outage' &&
        components.tunnels === 'partial_outage' &&
        components.dataPlane === 'degraded' &&
        eu.state === 'degraded'
      );
    });
    await lose('secret-name-2');
    await seen('a location is lost', ({ components, locations }) => {
      const [eu, us] = locations;
      return components.dataPlane === 'partial_outage' && eu.state === 'major_outage' && us.state === 'operational';
    });
    await lose('secret-name-3');
    await seen(
      'all is lost',
      ({ status, components }) =>
        status === 'major_outage' && components.dataPlane === 'major_outage' && components.tunnels === 'major_outage',
    );
    await postgres.query(`UPDATE servers SET state = 'online', lease_until = now() + interval '600 seconds'`);
    await postgres.query(`UPDATE servers SET max_tunnels = 9`);
    await seen('all is back', ({ status }) => status === 'operational');
  });

  it('looks at the store once in ten seconds, however many ask', async () => {
    await seen('all is well', ({ status }) => status === 'operational');
    const first = (await show()).checkedAt;
    const views = await Promise.all(Array.from({ length: 200 }, show));
    // the ten seconds may end in between, once
    expect(new Set([first, ...views.map(({ checkedAt }) => checkedAt)]).size).toBeLessThanOrEqual(2);
  });

  it('has an error that nobody keeps', async () => {
    const strict = await startBackend({ database: postgres, env: { RATE_LIMIT_PER_MINUTE: '2' } });
    const answers = [];
    for (let i = 0; i < 3; i++) answers.push(await new Api(strict.url).get(ROUTE));
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 429]);
    expect(answers.map(({ headers }) => headers.get('cache-control'))).toEqual([
      // two seconds where its first look at the store was late
      expect.stringMatching(/^public, max-age=(2|10)$/),
      expect.stringMatching(/^public, max-age=(2|10)$/),
      'no-store',
    ]);
    await strict.stop();
  });

  it('answers within a second while PostgreSQL hangs, from what it knows', { timeout: 120_000 }, async () => {
    await seen('all is well', ({ status }) => status === 'operational');
    await postgres.freeze();
    try {
      let slowestMs = 0;
      const trouble = await until(
        async () => {
          const { answer: view, ms } = await heldUp(backend.url, show);
          slowestMs = Math.max(slowestMs, ms);
          return view.components.api === 'degraded' && view;
        },
        'it is noticed',
        SEEN_MS,
      );
      expect(slowestMs).toBeLessThan(1_000);
      expect(trouble).toMatchObject({
        status: 'partial_outage',
        components: {
          api: 'degraded',
          tunnels: 'major_outage',
          dataPlane: 'operational',
          events: 'degraded',
          jobs: 'degraded',
        },
        locations: [
          { location: 'eu', state: 'operational' },
          { location: 'us', state: 'operational' },
        ],
        kept: KEPT_BRIEFLY,
      });
      const many = await heldUp(backend.url, () => Promise.all(Array.from({ length: 50 }, show)));
      expect(many.ms).toBeLessThan(1_000);
    } finally {
      await postgres.thaw();
    }
    await seen('it is back', ({ status, kept }) => status === 'operational' && kept === KEPT);
  });

  it('answers while PostgreSQL is down', { timeout: 120_000 }, async () => {
    await postgres.kill9();
    const down = await seen('it is noticed', ({ components }) => components.api === 'degraded');
    expect(down).toMatchObject({ status: 'partial_outage', kept: KEPT_BRIEFLY });
    // it is told of by whoever needed the database, and not by each look
    await postgres.startAgain();
    await seen('it is back', ({ status, kept }) => status === 'operational' && kept === KEPT);
  });

  it('answers while Redis hangs, and says that it is slower', { timeout: 120_000 }, async (context) => {
    const missing = redisMissing();
    if (missing !== undefined) return context.skip(missing);
    const redis = await OwnRedis.start();
    const shared = await startBackend({ database: postgres, env: redis.env });
    const of = new Api(shared.url);
    await shared.waitFor('Redis is reachable');
    await until(
      async () => {
        const { events, jobs } = (await of.get(ROUTE)).body.components;
        return events === 'operational' && jobs === 'operational';
      },
      'all is well',
      SEEN_MS,
    );
    redis.signal('SIGSTOP');
    await until(async () => {
      const { status, body } = await of.get(ROUTE);
      return status === 200 && body.components.events === 'degraded' && body.components.jobs === 'degraded';
    }, 'it is noticed');
    const { answer, ms } = await heldUp(shared.url, () => of.get(ROUTE));
    expect(answer.body).toMatchObject({
      components: { api: 'operational', events: 'degraded', jobs: 'degraded' },
    });
    expect(ms).toBeLessThan(1_000);
    redis.signal('SIGCONT');
    await until(async () => (await of.get(ROUTE)).body.components.events === 'operational', 'it is back', SEEN_MS);
    await shared.stop();
    await redis.stop();
  });
});
