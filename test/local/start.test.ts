import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { readFile, rename, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { parseEnv, promisify } from 'node:util';

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { commandLineOf } from '../../src/local/processes.js';
import { Api } from '../harness/api.js';
import { until } from '../harness/until.js';
import {
  freePorts,
  Launcher,
  launcherEnvironment,
  nothingListens,
  type Ports,
  removeFolder,
  temporaryFolder,
} from './launcher.js';

let folder: string;
let stateDir: string;
let ports: Ports;
let env: NodeJS.ProcessEnv;
let api: Api;
const launchers: Launcher[] = [];

beforeAll(async () => {
  folder = await temporaryFolder();
  stateDir = path.join(folder, 'state');
  ports = await freePorts('127.3.0.1');
  env = launcherEnvironment(stateDir, ports);
  api = new Api(`http://${ports.host}:${ports.api}`);
});

afterEach(async () => {
  for (const launcher of launchers.splice(0)) await launcher.stop();
  await nothingListens(stateDir, ports);
});

afterAll(() => removeFolder(folder));

function launch(extra: NodeJS.ProcessEnv = {}, command?: readonly string[]): Launcher {
  const launcher = new Launcher({ ...env, ...extra }, command);
  launchers.push(launcher);
  return launcher;
}

const secrets = async () => parseEnv(await readFile(path.join(stateDir, 'secrets.env'), 'utf8'));

/** Process id of a program, by the first line of its log. */
async function pidOf(program: 'backend' | 'bore-server' | 'postgres'): Promise<number> {
  if (program === 'postgres') return Number.parseInt(await readFile(`${stateDir}/postgres/postmaster.pid`, 'utf8'), 10);
  return Number(/"pid":(\d+)/.exec(await readFile(`${stateDir}/logs/${program}.log`, 'utf8'))?.[1]);
}

// one after the other, on one state folder: what the second start finds is what the first one left
describe('npm start', () => {
  it('the first time shows the administrator’s login and commands that work, and Ctrl-C leaves nothing running', async () => {
    const launcher = launch();
    const output = await launcher.ready();
    const { ADMIN_EMAIL = '', ADMIN_PASSWORD = '', JWT_SECRET, DB_PASSWORD } = await secrets();
    expect(output).toContain(`${ADMIN_EMAIL}, password ${ADMIN_PASSWORD} (shown this once`);
    expect((await stat(path.join(stateDir, 'secrets.env'))).mode & 0o777).toBe(0o600);
    expect((await api.get('/health/ready')).status).toBe(200);

    const login = await api.post('/api/v1/auth/login', { email: ADMIN_EMAIL, password: ADMIN_PASSWORD });
    expect(login.body.user).toMatchObject({ role: 'admin', plan: 'enterprise' });
    // without a stock client here: what would be run
    const command = stockClientCommands(output);
    const { stdout } = await promisify(execFile)('bash', ['-c', command], { env: { PATH: process.env['PATH'] } });
    expect(stdout).toMatch(/^bore local 8080 --to 127\.3\.0\.1 --port \d+ --secret tk_\S+\n$/);

    for (const secret of [JWT_SECRET, DB_PASSWORD, ADMIN_PASSWORD]) expect(allCommandLines()).not.toContain(secret);

    const second = launch({ PORT: '1' });
    expect(await second.exitCode()).toBe(1);
    expect(second.output()).toBe(
      `bore-platform runs already (process ${launcher.pid}), with its data in ${stateDir}\n`,
    );

    launcher.signalGroup('SIGINT');
    expect(await launcher.exitCode()).toBe(0);
    await nothingListens(stateDir, ports);
  });

  it('the second time finds its data, and shows no password', async () => {
    const launcher = launch();
    const output = await launcher.ready();
    const { ADMIN_EMAIL = '', ADMIN_PASSWORD = '' } = await secrets();
    expect(output).not.toContain(ADMIN_PASSWORD);
    expect(output).toContain(`password: ADMIN_PASSWORD in ${stateDir}/secrets.env`);
    const login = await api.post('/api/v1/auth/login', { email: ADMIN_EMAIL, password: ADMIN_PASSWORD });
    const tunnels = await api.withToken(login.body.accessToken).get('/api/v1/tunnels');
    expect(tunnels.body.items).toHaveLength(1);
    launcher.signalGroup('SIGHUP');
    expect(await launcher.exitCode()).toBe(0);
  });

  it('starts again after kill -9, although its programs were left', async () => {
    const killed = launch();
    await killed.ready();
    killed.child.kill('SIGKILL');
    await killed.exitCode();
    const launcher = launch();
    await launcher.ready();
    expect((await api.get('/health/ready')).status).toBe(200);
  });

  it('leaves no backend and no bore-server behind when it is killed and never started again', async () => {
    const killed = launch();
    await killed.ready();
    const database = await pidOf('postgres');
    const programs = [await pidOf('backend'), await pidOf('bore-server')];
    killed.child.kill('SIGKILL');
    await killed.exitCode();
    // the database stays until the next start: end it, and the rest must be gone
    process.kill(database, 'SIGINT');
    await nothingListens(stateDir, ports);
    for (const pid of programs) await until(() => commandLineOf(pid) === '', `process ${pid} is gone`, 20_000);
  });

  it.each([
    ['backend', 'backend ended (SIGKILL)'],
    ['bore-server', 'bore-server ended (SIGKILL)'],
    ['postgres', 'PostgreSQL ended'],
  ] as const)('stops everything and says why when %s dies', async (program, sentence) => {
    const launcher = launch();
    await launcher.ready();
    process.kill(await pidOf(program), 'SIGKILL');
    expect(await launcher.exitCode()).toBe(1);
    expect(launcher.output()).toContain(sentence);
    await nothingListens(stateDir, ports);
  });

  it('goes on when nobody reads its output, and npm passes Ctrl-C on', async () => {
    const launcher = launch({}, ['sh', '-c', 'npm --silent start | head -n 1']);
    await expect
      .poll(
        () =>
          api.get('/health/ready').then(
            ({ status }) => status,
            () => 0,
          ),
        { timeout: 60_000 },
      )
      .toBe(200);
    launcher.signalGroup('SIGINT');
    await launcher.exitCode();
    await nothingListens(stateDir, ports);
  });

  it('ends in order when it is told to while it starts', async () => {
    const launcher = launch();
    await launcher.says('Starting PostgreSQL');
    launcher.child.kill('SIGTERM');
    expect(await launcher.exitCode()).toBe(0);
    expect(launcher.output()).toMatch(/Stopping …\n$/);
  });

  it('refuses data of another PostgreSQL', async () => {
    const file = path.join(stateDir, 'postgres', 'PG_VERSION');
    const version = await readFile(file, 'utf8');
    await writeFile(file, '99\n');
    const launcher = launch();
    expect(await launcher.exitCode()).toBe(1);
    expect(launcher.output()).toContain('is of PostgreSQL 99, and this is PostgreSQL 18');
    await writeFile(file, version);
  });

  it('says so when the secrets are gone', async () => {
    const file = path.join(stateDir, 'secrets.env');
    await rename(file, `${file}.away`);
    const launcher = launch();
    expect(await launcher.exitCode()).toBe(1);
    expect(launcher.output()).toContain(`${file} is gone`);
    await rename(`${file}.away`, file);
  });
});

/** The block for stock clients out of the launcher's message, printing the last command instead of running it. */
function stockClientCommands(output: string): string {
  const block = /as the administrator:\n\n([\s\S]*?)\| sh\n/.exec(output)?.[1];
  if (block === undefined) throw new Error(`no commands for stock clients in:\n${output}`);
  return block;
}

/** What `ps` would show of every process on the machine. */
function allCommandLines(): string {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      } catch {
        return ''; // it has ended meanwhile
      }
    })
    .join('\n');
}
