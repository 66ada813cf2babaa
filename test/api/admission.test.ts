import { randomUUID } from 'node:crypto';

import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { SessionRef } from '../../src/protocol/plane-api.js';
import { Api } from '../harness/api.js';
import { type Backend, SECRETS, startBackend } from '../harness/backend.js';
import { comingAgain } from '../harness/coming-again.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { PlaneClient } from './plane-client.js';

const PASSWORD = 'correct horse battery';
const BACKENDS = 3;

let database: TestDatabase;
let backends: Backend[] = [];
let servers: PlaneClient[] = [];

beforeAll(async () => {
  database = await createDatabase();
  // the reserve is 20 %: 100 of 125 slots are for ordinary users
  const env = {
    PLAN_FREE_TUNNELS: '40',
    RESERVED_CAPACITY_PERCENT: '20',
    SERVER_LEASE_SECONDS: '600',
    HOUSEKEEPING_INTERVAL_MS: '60000',
  };
  const admin = { ADMIN_EMAIL: 'admin@example.com', ADMIN_PASSWORD: PASSWORD };
  backends = await Promise.all(
    Array.from({ length: BACKENDS }, () => startBackend({ database, env: { ...env, ...admin } })),
  );
  // as many ports as tunnels: every port is needed, so a port granted twice would leave another unused
  servers = [
    new PlaneClient(url(0), SECRETS.INTERNAL_API_KEY, 'small', { min: 10_000, max: 10_044 }),
    new PlaneClient(url(1), SECRETS.INTERNAL_API_KEY, 'large', { min: 11_000, max: 11_079 }),
  ];
  for (const server of servers) await server.register();
});

afterAll(async () => {
  for (const server of servers) server.close();
  await Promise.all(backends.map((backend) => backend.stop()));
  await database?.drop();
});

function url(i: number): string {
  return backends[i % BACKENDS]?.url ?? '';
}

/** One account with a client for each backend. */
async function newUser(email = `${randomUUID()}@example.com`, path = 'signup'): Promise<(i: number) => Api> {
  const { body } = await new Api(url(0)).post(`/api/v1/auth/${path}`, { email, password: PASSWORD });
  return (i) => new Api(url(i)).withToken(body.accessToken);
}

/** What must hold after anything: counters equal rows, nothing is oversold, no port belongs to two open tunnels (G1). */
async function expectInvariants(): Promise<void> {
  const broken = await database.query(`
    SELECT 'server counter' AS what, s.id FROM servers s
      WHERE s.open_tunnels <> (SELECT count(*) FROM tunnels t WHERE t.server_id = s.id AND t.state <> 'closed') OR s.open_tunnels > s.max_tunnels
    UNION ALL SELECT 'user counter', u.id::text FROM users u
      WHERE u.open_tunnels <> (SELECT count(*) FROM tunnels t WHERE t.user_id = u.id AND t.state <> 'closed')
    UNION ALL SELECT 'port twice', server_id || ':' || port FROM tunnels WHERE state <> 'closed' GROUP BY server_id, port HAVING count(*) > 1
    UNION ALL SELECT 'port of another range', t.id::text FROM tunnels t JOIN servers s ON s.id = t.server_id
      WHERE t.state <> 'closed' AND t.port NOT BETWEEN s.port_min AND s.port_max`);
  expect(broken).toEqual([]);
}

async function closeEverything(): Promise<void> {
  await database.query(
    `UPDATE tunnels SET state = 'closed', close_reason = 'test', closed_at = now(), idle_deadline = NULL WHERE state <> 'closed'`,
  );
}

const open = (user: Api, body: object = {}) => comingAgain(() => user.post('/api/v1/tunnels', body));

describe('admission under fire', () => {
  it('lets exactly 100 of 300 concurrent requests over 3 backends through, each with a port of its own', async () => {
    const users = await Promise.all(Array.from({ length: 10 }, () => newUser()));
    const answers = await Promise.all(
      Array.from({ length: 30 }, (_, turn) => users.map((user, i) => open(user(turn * 10 + i)))).flat(),
    );
    const tally: Record<string, number> = {};
    for (const answer of answers) {
      const outcome = answer?.status === 201 ? 'opened' : String(answer?.body.code);
      tally[outcome] = (tally[outcome] ?? 0) + 1;
    }
    expect(tally).toEqual({ opened: 100, NO_CAPACITY: 200 });
    expect(backends.map((backend) => backend.output()).join('')).not.toContain('deadlock');
    const opened = answers.flatMap((answer) => (answer?.status === 201 ? [answer.body.publicAddress] : []));
    expect(new Set(opened).size).toBe(100);
    await expectInvariants();
  });

  it('keeps the reserved fifth for administrators, and not one more', async () => {
    const admin = await newUser('admin@example.com', 'login');
    await database.query(`UPDATE users SET plan = 'enterprise' WHERE role = 'admin'`);
    const answers = await Promise.all(Array.from({ length: 60 }, (_, i) => open(admin(i))));
    // PLAN_ENTERPRISE_TUNNELS is 20
    expect(answers.filter((answer) => answer?.status === 201)).toHaveLength(20);
    expect(answers.filter((answer) => answer?.body.code === 'QUOTA_EXCEEDED')).toHaveLength(40);
    await expectInvariants();
    await closeEverything();
    await expectInvariants();
  });

  it('gives a user their quota and not one more, whichever backends they ask', async () => {
    const user = await newUser();
    const answers = await Promise.all(Array.from({ length: 90 }, (_, i) => open(user(i))));
    expect(answers.filter((answer) => answer?.status === 201)).toHaveLength(40);
    expect(answers.filter((answer) => answer?.body.code === 'QUOTA_EXCEEDED')).toHaveLength(50);
    await closeEverything();
  });

  it('gives one of 30 contenders the port that all of them ask for', async () => {
    const users = await Promise.all(Array.from({ length: 6 }, () => newUser()));
    const answers = await Promise.all(
      Array.from({ length: 5 }, (_, turn) => users.map((user, i) => open(user(turn * 6 + i), { port: 11_042 }))).flat(),
    );
    expect(answers.filter((answer) => answer?.status === 201)).toHaveLength(1);
    expect(answers.filter((answer) => answer?.body.code === 'PORT_TAKEN')).toHaveLength(29);
    await closeEverything();
  });

  it('spreads by load: neither server fills up while the other is empty', async () => {
    const user = await newUser();
    for (let i = 0; i < 25; i++) await user(i).post('/api/v1/tunnels', {});
    const rows = await database.query(`SELECT id, open_tunnels::float / max_tunnels AS load FROM servers ORDER BY id`);
    const loads = rows.map(({ load }) => Number(load));
    expect(Math.max(...loads) - Math.min(...loads)).toBeLessThan(0.05);
    await closeEverything();
  });
});

/** One step of a random history. `which` picks among the tunnels there are. */
const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('open' as const),
      port: fc.option(fc.integer({ min: 10_000, max: 10_044 }), { nil: undefined }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constantFrom('connect', 'disconnect', 'repeat old end', 'delete'), which: fc.nat() }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('server lost', 'server back', 'heartbeat') }) },
);

interface ModelTunnel {
  id: string;
  token: string;
  port: number;
  server: PlaneClient;
  current: SessionRef | undefined;
  old: SessionRef[];
}

describe('random histories', () => {
  it('never oversell, and never let an old session speak for a new one (G1, G3)', async () => {
    const user = await newUser();
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), async (steps) => {
        await closeEverything();
        let tunnels: ModelTunnel[] = [];
        const carried = (server: PlaneClient) =>
          tunnels.flatMap((t) => (t.server === server && t.current ? [t.current] : []));
        let n = 0;
        for (const action of steps) {
          n++;
          if ('port' in action) {
            const { status, body } = await user(n).post(
              '/api/v1/tunnels',
              action.port === undefined ? {} : { port: action.port },
            );
            if (status !== 201) continue;
            const server = servers.find(({ serverId }) => serverId === body.serverId);
            if (server)
              tunnels.push({ id: body.id, token: body.token, port: body.port, server, current: undefined, old: [] });
          } else if ('which' in action) {
            const tunnel = tunnels[action.which % Math.max(1, tunnels.length)];
            if (!tunnel) continue;
            if (action.do === 'connect') {
              const { status, body } = await tunnel.server.authorize(tunnel.token, n % 2 ? tunnel.port : 0);
              expect(status).toBe(200);
              expect(body.epoch).toBeGreaterThan(tunnel.current?.epoch ?? 0);
              if (tunnel.current) tunnel.old.push(tunnel.current);
              tunnel.current = body;
            } else if (action.do === 'disconnect' && tunnel.current) {
              const ended = tunnel.current;
              tunnel.old.push(ended);
              tunnel.current = undefined;
              await tunnel.server.heartbeat(carried(tunnel.server), [ended]);
            } else if (action.do === 'repeat old end') {
              await tunnel.server.heartbeat(carried(tunnel.server), tunnel.old);
            } else if (action.do === 'delete') {
              expect((await user(n).delete(`/api/v1/tunnels/${tunnel.id}`)).status).toBe(204);
              tunnels = tunnels.filter((other) => other !== tunnel);
            }
          } else if (action.do === 'server lost') {
            await database.query(`UPDATE servers SET lease_until = now() WHERE id = 'small'`);
          } else {
            for (const server of servers) await server.heartbeat(carried(server));
          }
        }
        for (const server of servers) {
          const { body } = await server.heartbeat(carried(server));
          // what the server carries by the model is what the control plane believes: nothing to close
          expect(body.close).toEqual([]);
        }
        await expectInvariants();
        const rows = await database.query(`SELECT id, state, session_id, epoch FROM tunnels WHERE state <> 'closed'`);
        expect(rows).toHaveLength(tunnels.length);
        for (const { id, current, old } of tunnels) {
          const row = rows.find((candidate) => candidate.id === id);
          if (current)
            expect(row).toMatchObject({ state: 'active', session_id: current.sessionId, epoch: current.epoch });
          else expect(row?.state).toBe(old.length > 0 ? 'offline' : 'pending');
        }
      }),
      { numRuns: 40 },
    );
  });
});
