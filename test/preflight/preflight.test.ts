/** `npm run preflight` on a whole installation, and on one that is broken in each way that it knows. */
import { mkdtemp, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';

import { findClock } from '../chaos/movable-clock.js';
import { packaged } from '../deploy/packaged.js';
import { redisMissing } from '../harness/own-redis.js';
import { RunningProcess } from '../harness/running-process.js';
import { ALERTMANAGER } from '../monitoring/own-alertmanager.js';
import { programsMissing } from '../monitoring/programs.js';
import { Front, makeCertificates } from './front.js';
import { Installation, KEYS, type Report, writeBackup } from './installation.js';
import { startSmallPrometheus, type Watching } from './small-prometheus.js';

const reason = redisMissing() ?? programsMissing({ prometheus: 'prometheus', openssl: 'openssl', ...ALERTMANAGER });

/** What no program sees, and what is not asked of an installation without webhooks. */
const NOT_CHECKED = ['notifications', 'firewall', 'dashboards', 'alerts-heard', 'restore', 'load'];

let own: Installation;

beforeEach(({ skip }) => {
  if (reason !== undefined) skip(reason);
});
beforeAll(async () => {
  if (reason !== undefined) return;
  own = await Installation.start('127.50.0.1');
  const all = Object.entries(WATCHING);
  await Promise.all(all.map(async ([how, of]) => watching.set(how, await startSmallPrometheus(of(own.watching)))));
}, 120_000);
afterAll(async () => {
  for (const { stop } of watching.values()) await stop();
  await own?.stop();
});

const idsOf = (report: Report, status: string) =>
  report.checks.filter((check) => check.status === status).map(({ id }) => id);

/** An installation that is broken in one way. */
interface Broken {
  readonly what: string;
  /** Variables and flags that differ. */
  readonly env?: NodeJS.ProcessEnv;
  readonly flags?: () => Record<string, string>;
  /** Breaks more than that, and returns what mends it (with flags to look at it by). */
  readonly break?: () => Promise<{
    flags?: Record<string, string>;
    env?: NodeJS.ProcessEnv;
    mend: () => Promise<unknown>;
  }>;
  /** What its finding says. */
  readonly says: RegExp;
  /** What cannot be known then. */
  readonly hides?: readonly string[];
  /** What it cannot be told apart from: fails as well. */
  readonly also?: readonly string[];
}

const sql = (statement: string, mend: string) => async () => {
  await own.database.query(statement);
  return { mend: () => own.database.query(mend) };
};

/** A front that is wrong for a time. */
const wrongly = (wrong: Front['wrong']) => async () => {
  Object.assign(own.front.wrong, wrong);
  return {
    mend: async () => Object.assign(own.front.wrong, { status: undefined, hidesLimits: false, showsMetrics: false }),
  };
};

/** A Prometheus takes some seconds until its first scrape: all of them at once. */
const WATCHING = {
  'without bore-servers': ({ targets: { 'bore-backend': backends = [] }, ...rest }) => ({
    ...rest,
    targets: { 'bore-backend': backends },
  }),
  'without a backend': ({ targets, ...rest }) => ({
    ...rest,
    targets: { ...targets, 'bore-backend': (targets['bore-backend'] ?? []).slice(1) },
  }),
  'with another token': (all) => ({ ...all, token: 'not-it' }),
  'without rules': (all) => ({ ...all, rules: false }),
  'without an Alertmanager': ({ targets, token }) => ({ targets, token }),
} satisfies Record<string, (watching: Watching) => Watching>;
const watching = new Map<string, { readonly url: string; readonly stop: () => Promise<void> }>();

/** Another Prometheus in place of the installation's. */
const watched = (how: keyof typeof WATCHING) => () => ({ '--prometheus': watching.get(how)?.url ?? '' });

/** Another front, with a certificate or protocols of its own. */
const frontWith =
  (days: number, old: object = {}) =>
  async () => {
    const certificates = makeCertificates(own.folder, `front-${days}`, days);
    const front = await Front.start(own.backends[0]?.url ?? '', certificates, '', old);
    const env = { NODE_EXTRA_CA_CERTS: certificates.authority };
    return { flags: { '--api': front.url }, env, mend: () => front.stop() };
  };

const HIDDEN_WITHOUT_API = ['api', 'rate-limits', 'metrics-hidden', 'backend-key'];

const BROKEN: Readonly<Record<string, readonly Broken[]>> = {
  'secrets-strong': [
    { what: 'a letter, many times', env: { TUNNEL_KEY_SECRET: 'x'.repeat(64) }, says: /TUNNEL_KEY_SECRET$/ },
    { what: 'digits that count up', env: { METRICS_TOKEN: '0123456789abcdef'.repeat(3) }, says: /METRICS_TOKEN/ },
    {
      what: 'words',
      env: { TUNNEL_KEY_SECRET: 'my-super-secret-tunnel-key-for-production-1' },
      says: /TUNNEL_KEY_SECRET/,
    },
    {
      what: 'a password of a dictionary',
      env: { ADMIN_EMAIL: 'a@example.com', ADMIN_PASSWORD: 'password1234' },
      says: /ADMIN_PASSWORD/,
    },
  ],
  'secrets-unique': [
    {
      what: 'two of one value',
      env: { METRICS_TOKEN: KEYS.all },
      says: /INTERNAL_API_KEY = METRICS_TOKEN|METRICS_TOKEN = INTERNAL_API_KEY/,
    },
  ],
  production: [{ what: 'another mode', env: { NODE_ENV: 'development' }, says: /development/ }],
  'redis-on': [
    { what: 'Redis off', env: { REDIS_ENABLED: 'false' }, says: /one backend only/, hides: ['redis', 'redis-policy'] },
  ],
  cors: [
    {
      what: 'an http origin',
      env: { ALLOWED_ORIGINS: 'https://a.example.com,http://b.example.com' },
      says: /: http:\/\/b.example.com$/,
    },
    { what: 'a developer’s machine', env: { ALLOWED_ORIGINS: 'https://localhost:5173' }, says: /localhost/ },
  ],
  'trusted-proxy': [{ what: 'nobody trusted', env: { TRUST_PROXY: '' }, says: /TRUST_PROXY is not set/ }],
  limits: [
    { what: 'limits of a load test', env: { RATE_LIMIT_LOGINS_PER_MINUTE: '10000' }, says: /LOGINS_PER_MINUTE=10000/ },
  ],
  database: [
    {
      what: 'nobody there',
      env: { DB_PORT: '1' },
      says: /ECONNREFUSED/,
      hides: [
        'migrations',
        'indexes-valid',
        'indexes',
        'connections',
        'instances',
        'clock',
        'bore-servers',
        'bore-server-control',
        'bore-server-key',
      ],
    },
  ],
  migrations: [
    {
      what: 'one missing',
      break: async () => {
        const last = `migration_name LIKE '%_log_level'`;
        const [row = {}] = await own.database.query(`SELECT * FROM _prisma_migrations WHERE ${last}`);
        await own.database.query(`DELETE FROM _prisma_migrations WHERE ${last}`);
        const values = Object.values(row);
        const places = values.map((_, i) => `$${i + 1}`).join();
        const names = Object.keys(row).join();
        return {
          mend: () => own.database.query(`INSERT INTO _prisma_migrations (${names}) VALUES (${places})`, values),
        };
      },
      says: /^missing: \d+_log_level$/,
    },
  ],
  'indexes-valid': [
    {
      what: 'one that could not be built',
      break: async () => {
        await own.database.query('CREATE TABLE doubled AS SELECT 1 AS n UNION ALL SELECT 1');
        const built = own.database.query('CREATE UNIQUE INDEX CONCURRENTLY doubled_key ON doubled (n)');
        await expect(built).rejects.toThrow('could not create unique index');
        return { mend: () => own.database.query('DROP TABLE doubled') };
      },
      says: /^invalid: doubled_key$/,
    },
  ],
  indexes: [
    {
      what: 'one dropped by hand',
      break: sql(
        'DROP INDEX tunnels_expires_at_idx',
        `CREATE INDEX tunnels_expires_at_idx ON tunnels (expires_at) WHERE (expires_at IS NOT NULL AND state <> 'closed'::tunnel_state)`,
      ),
      says: /^missing: tunnels_expires_at_idx$/,
    },
  ],
  connections: [
    {
      what: 'more pools than fit',
      env: { BACKEND_INSTANCES: '40', DB_MAX_CONNECTIONS: '1000' },
      says: /40 backends with a pool of 10: 450 of 400/,
    },
  ],
  instances: [{ what: 'one more than planned', env: { BACKEND_INSTANCES: '1' }, says: /^2 of 1/ }],
  redis: [
    { what: 'nobody there', env: { REDIS_PORT: '1' }, says: /ECONNREFUSED/, hides: ['redis-policy'] },
    {
      what: 'another password',
      env: { REDIS_PASSWORD: 'c7d1e0a9b35f4826d1908e7ac3f5b264' },
      says: /WRONGPASS|invalid/i,
      hides: ['redis-policy'],
    },
  ],
  'redis-policy': [
    {
      what: 'one that forgets',
      break: async () => {
        const set = (policy: string) => own.redis.ask((redis) => redis.config('SET', 'maxmemory-policy', policy));
        await set('allkeys-lru');
        return { mend: () => set('noeviction') };
      },
      says: /allkeys-lru/,
    },
  ],
  api: [
    {
      what: 'no backend behind it',
      break: wrongly({ status: 503 }),
      says: /503/,
      hides: ['backend-key'],
      also: ['rate-limits'],
    },
    {
      what: 'nobody there',
      flags: () => ({ '--api': 'https://127.0.0.1:2' }),
      says: /ECONNREFUSED/,
      hides: HIDDEN_WITHOUT_API.slice(1),
      also: ['tls'],
    },
  ],
  tls: [
    { what: 'a certificate that ends soon', break: frontWith(5), says: /ends in [45] days/ },
    {
      what: 'an authority that nobody knows',
      env: { NODE_EXTRA_CA_CERTS: '' },
      says: /certificate/,
      hides: HIDDEN_WITHOUT_API,
    },
    {
      what: 'TLS 1.1',
      break: frontWith(61, { minVersion: 'TLSv1', ciphers: 'DEFAULT@SECLEVEL=0' }),
      says: /TLS 1.1 or older/,
    },
    { what: 'none at all', flags: () => ({ '--api': own.backends[1]?.url ?? '' }), says: /not https/ },
    {
      what: 'none, and not by the loopback address: the key is not sent',
      // goes to this machine all the same
      flags: () => ({ '--api': (own.backends[1]?.url ?? '').replace('127.0.0.1', '0.0.0.0') }),
      says: /not https/,
      hides: ['backend-key'],
    },
  ],
  'rate-limits': [
    { what: 'headers that are not passed on', break: wrongly({ hidesLimits: true }), says: /RateLimit-Policy/ },
  ],
  'metrics-hidden': [
    { what: 'a balancer that shows them', break: wrongly({ showsMetrics: true }), says: /shows figures/ },
  ],
  'backend-key': [
    { what: 'a key of bore-servers alone', env: { INTERNAL_API_KEY: KEYS.ofBoreServers }, says: /refuse the key/ },
  ],
  'bore-servers': [
    {
      what: 'one that is away',
      break: sql(
        `INSERT INTO servers (id, host, port, location, max_tunnels, max_bandwidth_mbps)
         VALUES ('gone-1', 'gone.example.com', 7835, 'nowhere', 1, 1)`,
        `DELETE FROM servers WHERE id = 'gone-1'`,
      ),
      says: /^offline: gone-1$/,
    },
  ],
  'bore-server-control': [
    {
      what: 'a port that is closed to clients',
      break: async () => {
        await own.database.query(`UPDATE servers SET port = 1`);
        return { mend: () => own.database.query('UPDATE servers SET port = $1', [own.boreServer.controlPort]) };
      },
      says: /:1: .*ECONNREFUSED/,
    },
    {
      what: 'something else on it',
      break: async () => {
        const port = new URL(own.front.url).port;
        await own.database.query(`UPDATE servers SET port = $1, host = '127.0.0.1'`, [Number(port)]);
        const mend = 'UPDATE servers SET port = $1, host = $2';
        return { mend: () => own.database.query(mend, [own.boreServer.controlPort, own.boreServer.address]) };
      },
      says: /no Challenge|no bore-server/,
    },
  ],
  'bore-server-key': [
    { what: 'a key of backends alone', env: { INTERNAL_API_KEY: KEYS.ofBackends }, says: /s1 has another key/ },
    { what: 'nobody there', flags: () => ({ '--bore-server': 'http://127.0.0.1:2' }), says: /ECONNREFUSED/ },
  ],
  scraping: [
    { what: 'a job that is missing', flags: watched('without bore-servers'), says: /bore-server: 0 of 1/ },
    { what: 'a backend that nobody added', flags: watched('without a backend'), says: /bore-backend: 1 of 2/ },
    { what: 'another token', flags: watched('with another token'), says: /not scraped: .*401/ },
  ],
  'alert-rules': [{ what: 'none', flags: watched('without rules'), says: /not loaded: HighErrorRate/ }],
  alertmanager: [
    { what: 'nobody there', flags: () => ({ '--alertmanager': 'http://127.0.0.1:2' }), says: /ECONNREFUSED/ },
    {
      what: 'unknown to Prometheus',
      flags: watched('without an Alertmanager'),
      says: /Prometheus knows none/,
    },
  ],
  backup: [
    {
      what: 'none',
      break: async () => ({
        flags: { '--backup-dir': await mkdtemp(path.join(inject('scratch'), 'none-')) },
        mend: async () => undefined,
      }),
      says: /holds none/,
    },
    {
      what: 'an old one',
      break: async () => {
        const folder = await mkdtemp(path.join(inject('scratch'), 'old-'));
        await writeBackup(folder, own.database.address.database, new Date(Date.now() - 27 * 3_600_000));
        return { flags: { '--backup-dir': folder }, mend: async () => undefined };
      },
      says: /27 hours ago/,
    },
    {
      what: 'one that was cut off',
      break: async () => {
        const folder = await mkdtemp(path.join(inject('scratch'), 'cut-'));
        await writeFile(await writeBackup(folder, own.database.address.database, new Date()), 'a du');
        return { flags: { '--backup-dir': folder }, mend: async () => undefined };
      },
      says: /has 4 bytes, and not 6/,
    },
    { what: 'no folder', flags: () => ({ '--backup-dir': '/nonexistent' }), says: /cannot be read/ },
  ],
};

describe('preflight', () => {
  it('passes everything of a whole installation, and changes nothing in it', async () => {
    const tables = () => own.database.query('SELECT count(*)::int AS n FROM pg_class');
    const before = await tables();
    const report = await own.report();
    expect(report.checks.filter(({ status }) => status === 'fail')).toEqual([]);
    expect(idsOf(report, 'not-checked')).toEqual(NOT_CHECKED);
    expect(report).toMatchObject({ code: 0, failed: 0, notChecked: NOT_CHECKED.length });
    expect(await tables()).toEqual(before);
  });

  it('prints a line for each, and what to do where it is not good', async () => {
    const { code, output } = await own.preflight({ NODE_ENV: 'test' });
    expect(code).toBe(1);
    expect(output).toMatch(/^ {2}FAIL {2}NODE_ENV is production: NODE_ENV is test\n {8}→ set NODE_ENV=production/m);
    expect(output).toMatch(/^ {2}pass {2}migrations are complete: /m);
    expect(output).toMatch(/\n\d+ passed, 1 failed, 6 not checked\n$/);
  });

  it('says of what it was not told of that it was not checked', async () => {
    const { code, output } = await own.preflight({}, {}, [], {});
    expect(code).toBe(0);
    expect(output).toMatch(/^ {2} -- {3}the API answers: no --api\n {8}→ --api https/m);
    expect(output).toMatch(/^ {2} -- {3}all targets are scraped: no --prometheus/m);
    expect(output).toMatch(/^ {2} -- {3}there is a recent backup: no --backup-dir/m);
    expect(output).toMatch(/^ {2}pass {2}INTERNAL_API_KEY is theirs: accepted by 1$/m);
  });

  it('says which settings a backend would not start with', async () => {
    const report = await own.report({ JWT_SECRET: 'short', DB_PASSWORD: '' });
    expect(report.code).toBe(1);
    const failed = report.checks.filter(({ status }) => status === 'fail');
    expect(failed.map(({ id }) => id)).toEqual(['settings']);
    expect(failed[0]?.found).toMatch(/JWT_SECRET must have at least 32.*DB_PASSWORD is missing/);
  });

  it('does not understand other flags', async () => {
    expect((await own.preflight({}, { '--api': 'ftp://x' })).code).toBe(2);
    expect((await own.preflight({}, {}, ['--nonsense'])).code).toBe(2);
  });

  it('has a broken installation for each check', async () => {
    const { checks } = await own.report();
    const here = [...Object.keys(BROKEN), 'settings', 'clock', ...NOT_CHECKED];
    expect(checks.map(({ id }) => id).sort()).toEqual(here.sort());
  });

  it('runs from the package of a backend too, on its `.env`', async () => {
    const folder = await packaged('backend');
    const { PATH, NODE_EXTRA_CA_CERTS, ...settings } = own.env;
    const lines = Object.entries(settings).map(([name, value]) => `${name}=${value}\n`);
    await writeFile(path.join(folder, '.env'), lines.join(''));
    const args = ['dist/preflight/main.js', '--json', ...Object.entries(own.flags).flat()];
    // Node reads the authority before any program runs
    const run = new RunningProcess(process.execPath, args, { PATH, NODE_EXTRA_CA_CERTS }, folder);
    expect(await run.exitCode()).toBe(0);
    expect(run.output()).toContain('ours are not beside this program');
  }, 120_000);

  it('finds a clock that is wrong', async ({ skip }) => {
    const clock = await findClock(path.join(own.folder, 'clock'));
    if (!clock) return skip('libfaketime is not installed: apt-get install faketime');
    await clock.jump(600);
    const report = await own.report(clock.env);
    expect(idsOf(report, 'fail')).toEqual(['clock']);
    expect(report.checks.find(({ id }) => id === 'clock')).toMatchObject({
      found: expect.stringMatching(/^(599|600)\.\d s apart$/),
    });
  });

  describe.each(Object.entries(BROKEN))('%s', (id, broken) => {
    it.each(broken)('$what', async ({ env, flags, break: breakIt, says, hides = [], also = [] }) => {
      const broke = await breakIt?.();
      try {
        const report = await own.report({ ...env, ...broke?.env }, { ...flags?.(), ...broke?.flags });
        const failed = report.checks.filter(({ status }) => status === 'fail');
        expect(failed.map((check) => check.id).sort()).toEqual([id, ...also].sort());
        const check = failed.find((one) => one.id === id);
        expect(check?.found).toMatch(says);
        expect(check?.mend?.length).toBeGreaterThan(10);
        expect(idsOf(report, 'not-checked').sort()).toEqual([...NOT_CHECKED, ...hides].sort());
        expect(report.code).toBe(1);
      } finally {
        await broke?.mend();
      }
    });
  });
});
