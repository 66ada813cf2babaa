/** How much is logged, changed while everything runs. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { type BoreServerProcess, startBoreServer } from '../harness/bore-server.js';
import { until } from '../harness/until.js';
import { ControlPlane } from './control-plane.js';
import { inTransaction } from './transaction.js';

const ROUTE = '/api/v1/admin/log-level';
/** "Within seconds", on a busy machine. */
const SOON_MS = 15_000;

let plane: ControlPlane;
let admin: Api;
let server: BoreServerProcess;

beforeAll(async () => {
  plane = await ControlPlane.start({ backends: 2, env: { HEARTBEAT_INTERVAL_MS: '200' } });
  admin = await plane.admin();
  server = await startBoreServer({ backend: at(0), ports: { min: 21_200, max: 21_299 } });
});

afterAll(async () => {
  await server?.stop();
  await plane?.stop();
});

function at(i: number) {
  const backend = plane.backends[i];
  if (!backend) throw new Error('there is no such backend');
  return backend;
}
const put = (body: object, api = admin) =>
  api.send('PUT', ROUTE, JSON.stringify(body), { 'content-type': 'application/json' });

/** Whether a backend logs a health check now, which it does from debug on. */
async function logsDebug(i: number): Promise<boolean> {
  const backend = at(i);
  const before = backend.output().length;
  await new Api(backend.url).get('/health/live');
  // a line that is there at any level but `fatal` comes behind it
  const { headers } = await new Api(backend.url).get('/api/v1/nothing');
  const id = String(headers.get('x-request-id'));
  await until(() => backend.output().includes(id), 'the second request is logged');
  return backend.output().slice(before).includes('"route":"/health/live"');
}
const everywhere = (wanted: boolean) =>
  until(async () => (await logsDebug(0)) === wanted && (await logsDebug(1)) === wanted, 'all backends', SOON_MS);
const serverLogsHeartbeats = async () => {
  const before = server.output().length;
  const beats = Number((await plane.database.query('SELECT heartbeat_sequence AS n FROM servers'))[0]?.['n']);
  await until(async () => {
    const [row] = await plane.database.query('SELECT heartbeat_sequence AS n FROM servers');
    return Number(row?.['n']) > beats + 2;
  }, 'heartbeats');
  return server.output().slice(before).includes('"call":"heartbeat"');
};

describe('the log level', () => {
  it('is what was configured, until an administrator says otherwise', async () => {
    expect((await admin.get(ROUTE)).body).toEqual({ level: null, until: null, configured: 'info' });
    expect(await logsDebug(0)).toBe(false);
    expect(await serverLogsHeartbeats()).toBe(false);
  });

  it('changes on all backends and bore-servers, whichever was asked, and is in the audit log', async () => {
    const began = Date.now();
    const { status, body } = await put({ level: 'debug', minutes: 5 });
    expect({ status, level: body.level, configured: body.configured }).toEqual({
      status: 200,
      level: 'debug',
      configured: 'info',
    });
    expect(Math.abs(Date.parse(body.until) - began - 5 * 60_000)).toBeLessThan(60_000);
    expect(await logsDebug(0)).toBe(true);
    await everywhere(true);
    await until(serverLogsHeartbeats, 'the bore-server says more', SOON_MS);
    const [entry] = (await admin.get('/api/v1/admin/audit?action=log_level.changed')).body.items;
    expect(entry).toMatchObject({ actorEmail: 'admin@example.com', details: { level: 'debug', minutes: 5 } });
  });

  it('is still that after kill -9', async () => {
    await plane.killAndRestart(1);
    await until(() => logsDebug(1), 'the new process has read it', SOON_MS);
    expect((await admin.at(plane.url(1)).get(ROUTE)).body.level).toBe('debug');
  });

  it('ends by its time, on all of them', async () => {
    // the time that only the row knows
    await plane.database.query(`UPDATE log_level SET until = now() + interval '1 second'`);
    await everywhere(false);
    await until(async () => !(await serverLogsHeartbeats()), 'the bore-server says less', SOON_MS);
    expect((await admin.get(ROUTE)).body).toEqual({ level: null, until: null, configured: 'info' });
  });

  it('ends at once where an administrator says so', async () => {
    await put({ level: 'trace' });
    await everywhere(true);
    expect((await put({ level: null })).body.level).toBe(null);
    await everywhere(false);
  });

  it('is what was said last, also where a look that began before that ends after it', async () => {
    await put({ level: 'debug' });
    await everywhere(true);
    const looks = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%FROM log_level%'`;
    const waiting = async () => (await plane.database.query(looks)).length;
    // looks that find `debug` end when the test says so
    await plane.database.query(`ALTER TABLE log_level RENAME TO log_level_row`);
    try {
      await plane.database.query(
        `CREATE FUNCTION wait_at_debug(level text) RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN
           IF level = 'debug' THEN PERFORM pg_advisory_xact_lock_shared(4711); END IF;
           RETURN true;
         END $$`,
      );
      await plane.database.query(`CREATE VIEW log_level AS SELECT * FROM log_level_row WHERE wait_at_debug(level)`);
      const before = at(0).output().length;
      await inTransaction(plane.database, async (gate) => {
        await gate.query('SELECT pg_advisory_lock(4711)');
        await until(async () => (await waiting()) === 2, 'both backends look');
        expect((await put({ level: 'trace' })).body.level).toBe('trace');
        expect(await waiting()).toBe(2);
      });
      await until(async () => (await waiting()) === 0, 'the looks end');
      expect((await admin.get(ROUTE)).body.level).toBe('trace');
      const said = at(0).output().slice(before);
      expect([...said.matchAll(/"logLevel":"(\w+)"/g)].map(([, level]) => level)).toEqual(['trace']);
    } finally {
      await plane.database.query(`DROP VIEW IF EXISTS log_level`);
      await plane.database.query(`ALTER TABLE log_level_row RENAME TO log_level`);
      await put({ level: null });
    }
  });

  it('is refused where it is none, or for longer than a day', async () => {
    for (const body of [
      { level: 'loud' },
      { level: 'silent' },
      {},
      { level: 'debug', minutes: 0 },
      { level: 'debug', minutes: 1441 },
      { level: 'debug', until: 'x' },
    ]) {
      const { status, body: problem } = await put(body);
      expect({ status, code: problem.code }).toEqual({ status: 400, code: 'VALIDATION_FAILED' });
    }
    expect((await put({ level: 'debug' }, await plane.newUser())).status).toBe(403);
  });
});
