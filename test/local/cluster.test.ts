import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { parseEnv, promisify } from 'node:util';

import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';

import { clusterPorts, type ClusterSettings, readClusterSettings } from '../../src/local/cluster-settings.js';
import { isPortTaken } from '../../src/local/free-port.js';
import { isPrometheusInstalled } from '../../src/local/prometheus.js';
import { PROJECT_DIR } from '../../src/local/state-folders.js';
import { Api } from '../harness/api.js';
import { nginxUnavailable } from '../harness/nginx.js';
import { ownPort } from '../harness/own-ports.js';
import { redisMissing } from '../harness/own-redis.js';
import { until } from '../harness/until.js';
import { Launcher, removeFolder, temporaryFolder } from './launcher.js';

/** Ten programs on two cores, which other suites use too. */
const START_MS = 120_000;
/** Programs without a launcher have 25 s to end. */
const GONE_MS = 35_000;

/** Prometheus asks every 15 s. */
const SCRAPED_MS = 40_000;

const Result = z.object({
  data: z.object({ result: z.array(z.object({ value: z.tuple([z.number(), z.string()]) })) }),
});

const CLUSTER = path.join(PROJECT_DIR, 'dist/local/cluster-start.js');
const reason = redisMissing() ?? (await nginxUnavailable());

let folder: string;
let stateDir: string;
let settings: ClusterSettings;
let env: NodeJS.ProcessEnv;
const launchers: Launcher[] = [];

beforeAll(async () => {
  folder = await temporaryFolder();
  stateDir = path.join(folder, 'cluster');
  const own = await ownPort(4);
  env = {
    PATH: process.env['PATH'],
    HOME: process.env['HOME'],
    BORE_STATE_DIR: folder,
    BORE_LOCAL_BIND: '127.41.0.1',
    CLUSTER_DB_PORT: String(own),
    CLUSTER_DB_REPLICA_PORT: String(own + 1),
    CLUSTER_REDIS_PORT: String(own + 2),
    CLUSTER_PROMETHEUS_PORT: String(own + 3),
  };
  settings = readClusterSettings(env);
});

beforeEach(({ skip }) => {
  if (reason !== undefined) skip(reason);
});

afterEach(async () => {
  for (const launcher of launchers.splice(0)) await launcher.stop();
  await nothingListens();
}, GONE_MS);

afterAll(() => removeFolder(folder));

function launch(extra: NodeJS.ProcessEnv = {}): Launcher {
  const launcher = new Launcher({ ...env, ...extra }, [process.execPath, CLUSTER], PROJECT_DIR, stateDir);
  launchers.push(launcher);
  return launcher;
}

async function running(): Promise<Launcher> {
  const launcher = launch();
  await launcher.says('bore-platform runs as a cluster.');
  return launcher;
}

async function nothingListens(): Promise<void> {
  for (const { host, min, max } of clusterPorts(settings))
    for (const port of [min, max])
      await until(async () => !(await isPortTaken(port, host)), `${host}:${port} is free`, GONE_MS);
}

const secrets = async () => parseEnv(await readFile(path.join(stateDir, 'secrets.env'), 'utf8'));
const api = () => new Api(`http://${settings.bind}:${settings.apiPort}`);
const tunnelsOf = async () => {
  const { ADMIN_EMAIL = '', ADMIN_PASSWORD = '' } = await secrets();
  const { body } = await api().post('/api/v1/auth/login', { email: ADMIN_EMAIL, password: ADMIN_PASSWORD });
  return api().withToken(body.accessToken);
};

/** Whether Prometheus has had figures of three backends and three bore-servers, and nothing else to scrape. */
const allAreScraped = async () => {
  const { body } = await new Api(`http://${settings.bind}:${settings.prometheusPort}`).get('/api/v1/query?query=up');
  const values = Result.parse(body).data.result.map(({ value }) => value[1]);
  return values.length === 6 && values.every((up) => up === '1');
};

// one after the other, on one state folder: what the second start finds is what the first one left
describe('npm run cluster', () => {
  it(
    'runs all of it behind one name, and Ctrl-C leaves nothing running',
    async () => {
      const launcher = await running();
      const { ADMIN_EMAIL = '', ADMIN_PASSWORD = '', DB_PASSWORD = '' } = await secrets();
      expect(launcher.output()).toContain(`${ADMIN_EMAIL}, password ${ADMIN_PASSWORD} (shown this once`);

      for (const { address } of settings.machines) {
        const ready = await new Api(`http://${address}:${settings.apiPort}`).get('/health/ready');
        expect(ready.body.details).toMatchObject({ database: { status: 'up' }, redis: { status: 'up' } });
      }
      const database = new pg.Client({
        host: '127.0.0.1',
        port: settings.databasePort,
        database: 'bore_db',
        user: 'bore_user',
        password: DB_PASSWORD,
      });
      await database.connect();
      const { rows } = await database.query('SELECT application_name, state FROM pg_stat_replication');
      await database.end();
      expect(rows).toEqual([{ application_name: 'cluster_replica', state: 'streaming' }]);

      // the very command that is shown, without npm
      const demo = path.join(PROJECT_DIR, 'dist/local/demo.js');
      const { stdout } = await promisify(execFile)(process.execPath, [demo], {
        env: { ...env, BORE_STATE_DIR: stateDir, BORE_API: `http://${settings.bind}:${settings.apiPort}` },
      });
      expect(stdout).toMatch(/127\.41\.0\.1:10\d{3} takes no visitors any more\./);
      const user = await tunnelsOf();
      const opened = await Promise.all(Array.from({ length: 3 }, () => user.post('/api/v1/tunnels', {})));
      expect(new Set(opened.map(({ body }) => body.serverId))).toEqual(new Set(['s1', 's2', 's3']));

      if (isPrometheusInstalled()) await until(allAreScraped, 'Prometheus scrapes all of them', SCRAPED_MS);
      else
        process.stdout.write('the cluster is not watched here: there is no Prometheus (Debian package prometheus)\n');

      const second = launch();
      expect(await second.exitCode()).toBe(1);
      expect(second.output()).toBe(
        `bore-platform runs already (process ${launcher.pid}), with its data in ${stateDir}\n`,
      );

      launcher.signalGroup('SIGINT');
      expect(await launcher.exitCode(), launcher.output()).toBe(0);
      expect(launcher.output()).not.toMatch(/error|fatal/i);
      await nothingListens();
    },
    START_MS,
  );

  it(
    'finds its data the second time, shows no password, starts again what ends, and leaves nothing behind after kill -9',
    async () => {
      const launcher = await running();
      expect(launcher.output()).not.toContain((await secrets())['ADMIN_PASSWORD']);
      expect((await (await tunnelsOf()).get('/api/v1/tunnels')).body.items).toHaveLength(3);

      const log = await readFile(path.join(stateDir, 'logs/backend-2.log'), 'utf8');
      process.kill(Number(/"pid":(\d+)/.exec(log)?.[1]), 'SIGKILL');
      await launcher.says('backend-2 ended (SIGKILL): it is started again');
      const second = new Api(`http://${settings.machines[1]?.address}:${settings.apiPort}`);
      const isBack = async () => (await second.get('/health/ready').catch(() => undefined))?.status === 200;
      await until(isBack, 'backend-2 is back', GONE_MS);

      launcher.child.kill('SIGKILL');
      await launcher.exitCode();
      await nothingListens();
    },
    START_MS,
  );
});

describe('a component that is missing', () => {
  /** A PATH with these programs, as scripts, before what else is asked for. */
  async function bin(name: string, scripts: Record<string, string>): Promise<string> {
    const place = path.join(folder, name);
    await mkdir(place);
    for (const [program, script] of Object.entries(scripts)) {
      await writeFile(path.join(place, program), script);
      await chmod(path.join(place, program), 0o755);
    }
    return place;
  }

  async function refusal(PATH: string): Promise<string> {
    const launcher = launch({ PATH, BORE_STATE_DIR: path.join(folder, 'refused') });
    expect(await launcher.exitCode()).toBe(1);
    expect(existsSync(path.join(folder, 'refused/cluster/postgres'))).toBe(false);
    return launcher.output().split('\n').slice(1).join('\n');
  }

  it('is named, with what to install, and nothing is started', async () => {
    expect(await refusal(await bin('none', {}))).toBe('redis-server is not installed: apt-get install redis-server\n');
    const without = await bin('broken', { nginx: '#!/bin/sh\nexit 127\n' });
    expect(await refusal(`${without}:${process.env['PATH']}`)).toBe(
      'nginx is not installed: apt-get install nginx libnginx-mod-stream\n',
    );
    const modules = `echo "configure arguments: --modules-path=${folder} --with-stream=dynamic" >&2`;
    const bare = await bin('bare', { nginx: `#!/bin/sh\n${modules}\n` });
    await symlink('/bin/sh', path.join(bare, 'sh'));
    expect(await refusal(`${bare}:${process.env['PATH']}`)).toBe(
      'nginx has no stream module, which passes TCP on: apt-get install libnginx-mod-stream\n',
    );
  });
});
