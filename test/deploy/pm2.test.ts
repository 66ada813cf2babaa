/** deploy/pm2, and the specification's `pm2 start … -i`, with a real PM2 that has a daemon of its own. */
import { chmod, mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { NO_LIMITS, SECRETS } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { ownPort } from '../harness/own-ports.js';
import { scanFiles, scanLog } from '../harness/secret-scan.js';
import { until } from '../harness/until.js';
import { OwnPm2, pm2Unavailable } from './own-pm2.js';
import { newFolder, packaged } from './packaged.js';

const INSTALL_MS = 300_000;
/** Starts, drains and starts of several Node processes on a busy machine. */
const RELOAD_MS = 300_000;
const ECOSYSTEM = ['start', 'deploy/pm2/ecosystem.config.cjs', '--only'];

let reason: string | undefined;
let home: string;
let database: TestDatabase;
let pm2: OwnPm2 | undefined;

beforeAll(async () => {
  reason = await pm2Unavailable();
  if (reason !== undefined) return;
  home = await newFolder('opt-');
  for (const program of ['backend', 'bore-server'] as const)
    await symlink(await packaged(program), path.join(home, program));
  database = await createDatabase();
  const { host, port, database: name, user, password } = database.address;
  await settings('backend.env', {
    ...SECRETS,
    ...NO_LIMITS,
    HOST: '127.0.0.1',
    DB_HOST: host,
    DB_PORT: String(port),
    DB_NAME: name,
    DB_USER: user,
    DB_PASSWORD: password,
    BACKEND_INSTANCES: '4',
    ALLOW_INSTANCES_WITHOUT_REDIS: 'true',
    SHUTDOWN_DRAIN_SECONDS: '1',
  });
}, INSTALL_MS);

beforeEach(({ skip }) => {
  if (reason !== undefined) skip(reason);
});

afterEach(async () => {
  await pm2?.kill();
  pm2 = undefined;
}, RELOAD_MS);

afterAll(() => database?.drop());

async function settings(file: string, values: Readonly<Record<string, string>>): Promise<void> {
  const text = Object.entries(values).map(([name, value]) => `${name}=${value}\n`);
  await writeFile(path.join(home, file), text.join(''));
  await chmod(path.join(home, file), 0o600);
}

const statusOf = (url: string): Promise<number> =>
  new Api(url).get('/health/ready').then(
    ({ status }) => status,
    () => 0,
  );

/** Asks without a pause until it is told to end, and returns the answers that were not as wanted. */
function asking(ask: () => Promise<boolean>): { end(): Promise<{ asked: number; failed: number }> } {
  let ended = false;
  const loop = (async () => {
    let [asked, failed] = [0, 0];
    while (!ended) {
      asked++;
      if (!(await ask())) failed++;
    }
    return { asked, failed };
  })();
  return {
    end: () => {
      ended = true;
      return loop;
    },
  };
}

describe('the ecosystem file', () => {
  it(
    'runs backends on ports of their own, reloads one after another, and stops them in order',
    async () => {
      const port = await ownPort(2);
      const urls = [`http://127.0.0.1:${port}`, `http://127.0.0.1:${port + 1}`];
      pm2 = await OwnPm2.start({ BORE_HOME: home, BORE_SETTINGS: home, PORT: String(port), BORE_BACKENDS: '2' });
      await pm2.run([...ECOSYSTEM, 'bore-backend']);
      // it has waited for 'ready': nobody has to ask again
      expect(await Promise.all(urls.map(statusOf))).toEqual([200, 200]);
      const before = await pm2.processes();
      expect(before.map(({ pm2_env: { exec_mode, status } }) => [exec_mode, status])).toEqual([
        ['fork_mode', 'online'],
        ['fork_mode', 'online'],
      ]);

      // as a load balancer does, who tries the next when one says no: at each moment one of them is ready
      const [one = '', other = ''] = urls;
      const asked = asking(async () => {
        for (const url of [one, other, one]) if ((await statusOf(url)) === 200) return true;
        return false;
      });
      await pm2.run(['reload', 'bore-backend', '--parallel', '1']);
      const result = await asked.end();
      expect(result.failed).toBe(0);
      expect(result.asked).toBeGreaterThan(10);
      const after = await pm2.processes();
      for (const { pid } of after) expect(before.map((each) => each.pid)).not.toContain(pid);

      await pm2.run(['stop', 'bore-backend']);
      expect((await pm2.processes()).map(({ pm2_env: { status, exit_code } }) => [status, exit_code])).toEqual([
        ['stopped', 0],
        ['stopped', 0],
      ]);
      const log = await pm2.log('bore-backend');
      // two that were reloaded, two that were stopped
      expect(log.match(/"msg":"draining"/g)).toHaveLength(4);
      expect(log.match(/"msg":"stopped"/g)).toHaveLength(4);
      scanLog(log);
      // nor does what PM2 keeps on disk
      await pm2.run(['save']);
      await scanFiles(pm2.home, Object.values(SECRETS));
    },
    RELOAD_MS,
  );

  it(
    'runs a bore-server, which keeps its state and drains',
    async () => {
      const data = path.join(await newFolder('data-'), 'bore');
      await mkdir(data);
      const [admin, control, min] = [await ownPort(), await ownPort(), await ownPort(3)];
      await settings('bore-server.env', {
        BORE_BACKEND_URL: 'http://127.0.0.1:9',
        BORE_BACKEND_API_KEY: SECRETS.INTERNAL_API_KEY,
        BORE_SERVER_ID: 'eu-1',
        BORE_PORT_RANGE: `${min}:${min + 2}`,
        BORE_CONTROL_PORT: String(control),
        BORE_ADMIN_PORT: String(admin),
        BORE_BIND_ADDR: '127.0.0.1',
      });
      pm2 = await OwnPm2.start({ BORE_HOME: home, BORE_SETTINGS: home, BORE_DATA_DIR: data });
      await pm2.run([...ECOSYSTEM, 'bore-server']);
      const api = new Api(`http://127.0.0.1:${admin}`);
      await until(
        () =>
          api.get('/health').then(
            ({ status }) => status === 200,
            () => false,
          ),
        'it runs',
        60_000,
      );
      await pm2.run(['stop', 'bore-server']);
      const [server] = await pm2.processes();
      expect(server?.pm2_env).toMatchObject({ status: 'stopped', exit_code: 0 });
      expect(await pm2.log('bore-server')).toContain('"msg":"stopped"');
      expect(await readdir(data)).toContain('bore-server.eu-1.state');
    },
    RELOAD_MS,
  );
});

it(
  'the specification’s command: several backends behind one port, and a reload fails no request',
  async () => {
    const port = await ownPort();
    const url = `http://127.0.0.1:${port}`;
    await symlink(path.join(home, 'backend.env'), path.join(home, 'backend/.env'));
    pm2 = await OwnPm2.start({ PORT: String(port), NODE_ENV: 'production' });
    const start = ['start', 'dist/main.js', '--name', 'bore-backend', '-i', '2'];
    await pm2.run(
      [...start, '--wait-ready', '--listen-timeout', '60000', '--kill-timeout', '30000'],
      path.join(home, 'backend'),
    );
    expect(await statusOf(url)).toBe(200);
    expect((await pm2.processes()).map(({ pm2_env }) => pm2_env.exec_mode)).toEqual(['cluster_mode', 'cluster_mode']);

    let n = 0;
    const user = new Api(url);
    const loops = [
      asking(async () => (await user.get('/health/live').catch(() => undefined))?.status === 200),
      asking(async () => (await user.get('/api/v1/auth/me').catch(() => undefined))?.status === 401),
      asking(async () => {
        const body = { email: `pm2-${++n}@example.com`, password: 'correct horse battery' };
        return (await user.post('/api/v1/auth/signup', body).catch(() => undefined))?.status === 201;
      }),
    ];
    await pm2.run(['reload', 'bore-backend']);
    const results = await Promise.all(loops.map((loop) => loop.end()));
    expect(results.map(({ failed }) => failed)).toEqual([0, 0, 0]);
    for (const { asked } of results) expect(asked).toBeGreaterThan(5);
    await pm2.run(['stop', 'bore-backend']);
    expect((await pm2.log('bore-backend')).match(/"msg":"stopped"/g)).toHaveLength(4);
  },
  RELOAD_MS,
);
