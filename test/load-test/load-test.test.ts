import { mkdtemp, readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { z } from 'zod';

import { Platform } from '../harness/platform.js';
import { RunningProcess } from '../harness/running-process.js';
import { until } from '../harness/until.js';

const MAIN = fileURLToPath(new URL('../load-test.js', import.meta.url));
const Series = z.object({
  name: z.string(),
  count: z.int(),
  failed: z.int(),
  p50Ms: z.number(),
  p95Ms: z.number(),
  p99Ms: z.number(),
  maxMs: z.number(),
});
const Report = z.object({
  passed: z.boolean(),
  successPercent: z.number(),
  events: z.int(),
  total: Series,
  routes: z.array(Series),
  failures: z.record(z.string(), z.int()),
});

let platform: Platform;
let folder: string;

beforeAll(async () => {
  platform = await Platform.start({ address: '127.0.2.92', ports: { min: 10_000, max: 10_099 } });
  folder = await mkdtemp(path.join(inject('scratch'), 'load-test-'));
});
afterAll(() => platform?.stop());

const start = (args: readonly string[], env: NodeJS.ProcessEnv = {}) =>
  new RunningProcess(process.execPath, [MAIN, ...args], { PATH: process.env['PATH'], ...env });
/** Its exit code; a machine that is busy with other things takes its time to start it. */
async function ended(run: RunningProcess): Promise<number | null> {
  await until(() => run.exited(), 'the load test has ended', 80_000);
  return run.exitCode();
}
const report = async (file: string) => Report.parse(JSON.parse(await readFile(file, 'utf8')));
const openTunnels = async () =>
  Number((await platform.database.query(`SELECT count(*) AS n FROM tunnels WHERE state <> 'closed'`))[0]?.['n']);
const openLogins = async () =>
  Number(
    (
      await platform.database.query(
        `SELECT count(*) AS n FROM auth_sessions WHERE ended_at IS NULL AND user_id IN (SELECT id FROM users WHERE email LIKE 'run-%')`,
      )
    )[0]?.['n'],
  );

describe('npm run load-test', () => {
  it(
    'works as many users do, says how it went, and leaves neither tunnels nor logins',
    { timeout: 120_000 },
    async () => {
      const json = path.join(folder, 'good.json');
      const run = start([
        '--users',
        '12',
        '--duration',
        '12',
        '--pace',
        '1',
        '--ramp-up',
        '1',
        '--target',
        platform.backend.url,
        '--json',
        json,
      ]);
      await ended(run);
      const { routes, events, failures, total, successPercent } = await report(json);
      expect(failures).toEqual({});
      expect(successPercent).toBe(100);
      expect(routes.map(({ name }) => name)).toEqual([
        '64 KiB there and back',
        'connect a client',
        'DELETE tunnels/:id',
        'GET auth/me',
        'GET capacity',
        'GET events (stream)',
        'GET tunnels',
        'GET tunnels/:id',
        'POST tunnels',
      ]);
      expect(total.count).toBeGreaterThan(90);
      expect(total.count).toBe(routes.reduce((sum, { count }) => sum + count, 0));
      expect(events).toBeGreaterThan(0);
      // more than ten wait for the same end
      expect(run.output()).not.toContain('Warning');
      expect(run.output()).toMatch(/ms since they were due .* P99/);
      expect(run.output()).toMatch(/1[0-2]\/12 s {2}12 users {2}[\d.]+ requests\/s {2}100\.00 % good/);
      expect(await openTunnels()).toBe(0);
      expect(await openLogins()).toBe(0);
    },
  );

  it(
    'shows a platform that stood still for all that was due meanwhile, and exits with 1',
    { timeout: 120_000 },
    async () => {
      const json = path.join(folder, 'stalled.json');
      // tunnels of the run before may be seconds old
      const [clock] = await platform.database.query('SELECT now() AS at');
      const run = start([
        '--users',
        '4',
        '--duration',
        '12',
        '--pace',
        '0.1',
        '--ramp-up',
        '0',
        '--target',
        platform.backend.url,
        '--json',
        json,
      ]);
      // it works: four users have acted some times
      await until(
        async () =>
          Number(
            (
              await platform.database.query('SELECT count(*) AS n FROM tunnels WHERE created_at > $1', [clock?.['at']])
            )[0]?.['n'],
          ) > 2,
        'it has begun',
        20_000,
      );
      const stalledAt = performance.now();
      platform.backend.signal('SIGSTOP');
      await until(() => performance.now() - stalledAt > 2_500, 'the backend stood still');
      platform.backend.signal('SIGCONT');
      expect(await ended(run)).toBe(1);
      const { total, successPercent } = await report(json);
      // a client that comes meanwhile is refused by the bore-server, which can ask nobody: it is no failure of many
      expect(successPercent).toBeGreaterThan(99);
      // 2.5 s of 12: a fifth of all that was due. Four users who waited for their answers would have measured four such requests of
      // hundreds, and no percentile would have shown them
      expect(total.p95Ms).toBeGreaterThan(500);
      expect(total.p99Ms).toBeGreaterThan(1_000);
      expect(run.output()).toMatch(/MISSED P99, ms/);
      expect(run.output()).toMatch(/FAILED\n$/);
    },
  );

  it('closes its tunnels and logs out on Ctrl-C', { timeout: 120_000 }, async () => {
    const run = start([
      '--users',
      '5',
      '--duration',
      '60',
      '--pace',
      '0.2',
      '--ramp-up',
      '0',
      '--target',
      platform.backend.url,
    ]);
    await until(async () => (await openTunnels()) > 0, 'tunnels are open', 20_000);
    run.signal('SIGINT');
    expect(await ended(run)).toBe(130);
    expect(run.output()).toMatch(/interrupted\n$/);
    expect(await openTunnels()).toBe(0);
    expect(await openLogins()).toBe(0);
  });

  it('counts what is refused, with the reason', { timeout: 120_000 }, async () => {
    const json = path.join(folder, 'full.json');
    await platform.database.query(`UPDATE servers SET drain_requested = true`);
    const run = start([
      '--users',
      '3',
      '--duration',
      '5',
      '--pace',
      '0.2',
      '--target',
      platform.backend.url,
      '--json',
      json,
    ]);
    expect(await ended(run)).toBe(1);
    await platform.database.query(`UPDATE servers SET drain_requested = false`);
    const { failures, successPercent } = await report(json);
    expect(failures['POST tunnels: NO_CAPACITY']).toBeGreaterThan(0);
    expect(successPercent).toBeLessThan(99);
  });

  it('uses the accounts of a prefix again', { timeout: 120_000 }, async () => {
    const args = [
      '--users',
      '2',
      '--duration',
      '1',
      '--pace',
      '0.5',
      '--prefix',
      'again',
      '--target',
      platform.backend.url,
    ];
    for (let i = 0; i < 2; i++) {
      const run = start(args, { LOAD_TEST_PASSWORD: 'correct horse battery staple' });
      expect([0, 1]).toContain(await ended(run));
      expect(run.output()).toContain('2 users');
    }
    expect(await platform.database.query(`SELECT count(*)::int AS n FROM users WHERE email LIKE 'again-%'`)).toEqual([
      { n: 2 },
    ]);
  });

  it.each([
    [
      ['--target', 'https://tunnels.example.com'],
      2,
      'load-test: https://tunnels.example.com is not this machine: give --i-own-this-target if it is yours.',
    ],
    [['--users', '0'], 2, "error: option '--users <n>' argument '0' is invalid. It must be a number from 1 to 1000."],
    [
      ['--duration', 'soon'],
      2,
      "error: option '--duration <seconds>' argument 'soon' is invalid. It must be a number from 1 to 86400.",
    ],
    [['--prefix', 'x'], 2, 'load-test: --prefix needs the accounts’ password in LOAD_TEST_PASSWORD.'],
    [
      ['--target', 'http://127.0.0.1:1'],
      1,
      'load-test: The platform at http://127.0.0.1:1 cannot be reached: fetch failed',
    ],
  ])('says in one sentence what is wrong with %j', async (args, code, sentence) => {
    const run = start(args);
    expect(await ended(run)).toBe(code);
    expect(run.output().trim().split('\n')).toHaveLength(1);
    if (code === 2) expect(run.output().trim()).toBe(sentence);
    else expect(run.output()).toMatch(/^load-test: The platform at http:\/\/127\.0\.0\.1:1 cannot be reached: /);
  });
});

describe('a platform with its default limits', () => {
  it('names the settings that let more users in', { timeout: 120_000 }, async () => {
    const strict = await Platform.start({
      address: '127.0.2.93',
      ports: { min: 10_100, max: 10_199 },
      env: { RATE_LIMIT_SIGNUPS_PER_HOUR: '3', RATE_LIMIT_LOGINS_PER_MINUTE: '30' },
    });
    try {
      const run = start(['--users', '5', '--duration', '1', '--target', strict.backend.url]);
      expect(await ended(run)).toBe(1);
      expect(run.output().trim()).toMatch(
        /^load-test: The platform lets this address log in no more users than \d now: for the test, start its backends with RATE_LIMIT_SIGNUPS_PER_HOUR and RATE_LIMIT_LOGINS_PER_MINUTE of at least 6\.$/,
      );
    } finally {
      await strict.stop();
    }
  });
});

describe('a platform with short logins and one tunnel for each user', () => {
  let short: Platform;

  beforeAll(async () => {
    short = await Platform.start({
      address: '127.0.2.94',
      ports: { min: 10_200, max: 10_299 },
      env: { ACCESS_TOKEN_SECONDS: '30', PLAN_FREE_TUNNELS: '1' },
    });
  });
  afterAll(() => short?.stop());

  it('refreshes logins before they end', { timeout: 180_000 }, async () => {
    const json = path.join(folder, 'long.json');
    const url = short.backend.url;
    const run = start(['--users', '6', '--duration', '40', '--pace', '0.5', '--target', url, '--json', json]);
    await ended(run);
    const { failures, successPercent } = await report(json);
    expect([failures, successPercent]).toEqual([{}, 100]);
    const [open] = await short.database.query(`SELECT count(*)::int AS n FROM auth_sessions WHERE ended_at IS NULL`);
    expect(open).toEqual({ n: 0 });
  });

  it('goes on when a tunnel could not be closed at once, and counts that', { timeout: 120_000 }, async () => {
    // what a rolled back statement has taken from a sequence stays taken: the first three closings fail
    await short.database.query('CREATE SEQUENCE closings');
    await short.database.query(
      `CREATE FUNCTION fail_closing() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN IF nextval('closings') <= 3 THEN RAISE EXCEPTION 'not now'; END IF; RETURN NEW; END $$`,
    );
    await short.database.query(
      `CREATE TRIGGER fail_closing BEFORE UPDATE ON tunnels FOR EACH ROW
         WHEN (OLD.state <> 'closed' AND NEW.state = 'closed') EXECUTE FUNCTION fail_closing()`,
    );
    const json = path.join(folder, 'not-closed.json');
    const url = short.backend.url;
    await ended(start(['--users', '1', '--duration', '15', '--pace', '0.2', '--target', url, '--json', json]));
    const { failures, routes } = await report(json);
    expect(failures).toEqual({ 'DELETE tunnels/:id: INTERNAL_ERROR': 3 });
    const opened = routes.find(({ name }) => name === 'POST tunnels');
    expect(opened?.failed).toBe(0);
    expect(opened?.count).toBeGreaterThan(1);
    const [open] = await short.database.query(`SELECT count(*)::int AS n FROM tunnels WHERE state <> 'closed'`);
    expect(open).toEqual({ n: 0 });
  });
});
