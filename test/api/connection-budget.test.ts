/** Several backends share the connections that PostgreSQL has. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { ownPort } from '../harness/own-ports.js';
import { OwnPostgres } from '../harness/own-postgres.js';
import { until } from '../harness/until.js';

const MAX_CONNECTIONS = 52;

let postgres: OwnPostgres;
const backends: Backend[] = [];

beforeAll(async () => {
  postgres = await OwnPostgres.start([`max_connections=${MAX_CONNECTIONS}`]);
});

afterAll(async () => {
  for (const backend of backends) await backend.stop();
  await postgres?.drop();
});

async function start(env: NodeJS.ProcessEnv, expectFailure = false): Promise<Backend> {
  const backend = await startBackend({ database: postgres, env, expectFailure });
  backends.push(backend);
  return backend;
}

const connections = async (name: string) => {
  const sql = 'SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name LIKE $1';
  return Number((await postgres.query(sql, [name]))[0]?.['n']);
};

describe('the connections of all backends', () => {
  it('stay below max_connections under more requests than there are connections; nothing fails', async () => {
    const env = {
      DB_MAX_CONNECTIONS: String(MAX_CONNECTIONS),
      BACKEND_INSTANCES: '2',
      // not there: the monitor has its connection to the primary all the same
      DB_REPLICA_HOSTS: `127.0.0.1:${await ownPort()}`,
    };
    const pair = [await start(env), await start(env)];
    const [first] = pair;
    if (!first) throw new Error('no backend');
    const account = { email: 'a@example.com', password: 'correct horse battery' };
    const { body } = await new Api(first.url).post('/api/v1/auth/signup', account);
    const user = (backend: Backend) => new Api(backend.url).withToken(body.accessToken);
    let most = 0;
    const statuses: number[] = [];
    for (let round = 0; round < 10; round++) {
      const reads = pair.flatMap((backend) => Array.from({ length: 100 }, () => user(backend).get('/api/v1/capacity')));
      const watching = (async () => {
        for (let n = 0; n < 20; n++) most = Math.max(most, await connections('bore-%'));
      })();
      statuses.push(...(await Promise.all(reads)).map(({ status }) => status));
      await watching;
    }
    expect(new Set(statuses)).toEqual(new Set([200]));
    // (52 - 10) / 2 each, of which 12 are the two queues', and 1 each the monitor's, the instance lock's and that which hears of events
    expect(await connections('bore-backend')).toBe(2 * 6);
    expect(await connections('bore-queue')).toBeLessThanOrEqual(2 * 12);
    // one that answered late is connected to again a second later
    await until(async () => (await connections('bore-replica-monitor')) === 2, 'the replica monitors');
    expect(most).toBeLessThanOrEqual(MAX_CONNECTIONS - 10);
    for (const backend of pair) expect(backend.output()).not.toContain('max_connections');
  });

  it.each([
    { BACKEND_INSTANCES: '12' },
    { DB_MAX_CONNECTIONS: '40', DB_POOL_SIZE: '25' },
    { DB_MAX_CONNECTIONS: '40', DB_POOL_SIZE: '10', BACKEND_INSTANCES: '2' },
  ])('are counted before a backend starts: %o', async (env) => {
    const refused = await startBackend({ database: postgres, env, expectFailure: true });
    expect(await refused.exitCode()).toBe(1);
    expect(refused.output()).toMatch(/DB_MAX_CONNECTIONS \(\d+\) is too small: .*BACKEND_INSTANCES/);
  });

  it('are compared with what the server has', async () => {
    const backend = await start({ DB_MAX_CONNECTIONS: '200', BACKEND_INSTANCES: '3' });
    const output = await backend.waitFor('backends may pass max_connections');
    expect(output).toContain('"maxConnections":52,"wanted":82');
  });
});
