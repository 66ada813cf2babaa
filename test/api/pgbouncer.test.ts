/** Backends behind pgbouncer, as docs/database.md configures it. */
import { expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { SECRETS, startBackend } from '../harness/backend.js';
import { EventStream } from '../harness/event-stream.js';
import { OwnPostgres } from '../harness/own-postgres.js';
import { pgbouncerUnavailable, startPgbouncer } from '../harness/pgbouncer.js';
import { until } from '../harness/until.js';
import { PlaneClient } from './plane-client.js';

/** Two are the locks of the instances, in a transaction that lasts; each backend has ten requests and jobs at once. */
const SERVER_CONNECTIONS = 6;

it(
  'two backends work through fewer connections than either has, and the queue past it',
  { timeout: 120_000 },
  async (context) => {
    const reason = await pgbouncerUnavailable();
    if (reason !== undefined) context.skip(reason);
    const postgres = await OwnPostgres.start();
    const pgbouncer = await startPgbouncer(postgres, SERVER_CONNECTIONS);
    const start = () =>
      startBackend({
        database: postgres,
        env: {
          DB_PORT: String(pgbouncer.port),
          DB_DIRECT_PORT: String(postgres.address.port),
          HOUSEKEEPING_INTERVAL_MS: '1000',
          PLAN_FREE_TUNNELS: '1000',
        },
      });
    const backends = [await start(), await start()];
    const urls = backends.map(({ url }) => url);
    const [first = ''] = urls;
    const server = new PlaneClient(first, SECRETS.INTERNAL_API_KEY, 's1', { min: 10_000, max: 10_999 });
    try {
      expect((await server.register({ maxTunnels: 1_000 })).status).toBe(200);
      const account = { email: 'a@example.com', password: 'correct horse battery' };
      const { body } = await new Api(first).post('/api/v1/auth/signup', account);
      const user = new Api(first).withToken(body.accessToken);
      const requests = Array.from({ length: 60 }, async (_, i) => {
        const api = user.at(urls[i % 2] ?? first);
        const opened = await api.post('/api/v1/tunnels', { name: `t-${i}` });
        const listed = await api.get('/api/v1/tunnels');
        return [opened.status, listed.status];
      });
      expect(new Set((await Promise.all(requests)).flat())).toEqual(new Set([201, 200]));

      const connected = await postgres.query(
        `SELECT application_name AS name, count(*)::int AS n FROM pg_stat_activity
       WHERE application_name IN ('bore-backend', 'bore-queue') GROUP BY 1 ORDER BY 1`,
      );
      const [ofBackends, ofQueue] = connected;
      expect(ofBackends).toMatchObject({ name: 'bore-backend' });
      expect(Number(ofBackends?.['n'])).toBeLessThanOrEqual(SERVER_CONNECTIONS);
      expect(ofQueue).toMatchObject({ name: 'bore-queue' });

      // the time-outs that pgbouncer cannot pass on: a lock that is held ends the wait of who wants it
      const held = await postgres.hold('BEGIN', 'LOCK TABLE tunnels');
      const asked = performance.now();
      const waited = await user.post('/api/v1/tunnels', { name: 'late' });
      await held.release();
      expect(waited.status).toBe(503);
      // 3 s; the driver alone would wait for 12
      expect(performance.now() - asked).toBeLessThan(10_000);

      // events are heard of at once, of either backend, by a connection that LISTENs
      const stream = await EventStream.open(user.at(urls[1] ?? first));
      const began = performance.now();
      const { items } = (await user.get('/api/v1/tunnels?limit=1')).body;
      for (let i = 1; i <= 10; i++) {
        await user.patch(`/api/v1/tunnels/${items[0].id}`, { name: `renamed-${i}` });
        await stream.received(i);
      }
      stream.close();
      // looking once a second would take ten
      expect(performance.now() - began).toBeLessThan(5_000);

      // jobs run, by the queue that LISTENs
      await postgres.query(`UPDATE tunnels SET idle_deadline = now() WHERE name = 't-0'`);
      const state = async () => (await postgres.query(`SELECT state FROM tunnels WHERE name = 't-0'`))[0]?.['state'];
      await until(async () => (await state()) === 'closed', 'a job has closed it', 20_000);
    } finally {
      server.close();
      for (const backend of backends) await backend.stop();
      // SIGTERM ends it with an error code
      await pgbouncer.process.kill9();
      await postgres.drop();
    }
  },
);
