/**
 * deploy/systemd. systemd itself reads the units; it cannot run them where it is not process 1, so their command lines are run as it
 * would, and what the programs do meanwhile is compared with what the units forbid.
 */
import { spawnSync } from 'node:child_process';
import { cp, readFile } from 'node:fs/promises';
import path from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { readOptions } from '../../src/bore-server/options.js';
import { readConfig } from '../../src/platform/config/config.js';
import { Api } from '../harness/api.js';
import { SECRETS } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { ownPort } from '../harness/own-ports.js';
import { RunningProcess } from '../harness/running-process.js';
import { until } from '../harness/until.js';
import { commandOf, descriptorsHere, installation, namespacesUnavailable, whereInstalled } from './as-installed.js';
import { newFolder, nodeOutOfReach, packaged, ROOT, USER } from './packaged.js';
import { allowedCalls, callsIn } from './syscalls.js';
import { UnitFile, unitNames } from './unit-file.js';

/** What `systemd-analyze security` says of each: 0 is safe, 10 is not. A unit without any of it has 9.6. */
const EXPOSURE_MAX = 1.4;
const PACKAGE_MS = 180_000;
/** A program under strace on a busy machine. */
const TRACED_MS = 120_000;

const units = await unitNames();
const noAnalyze = spawnSync('systemd-analyze', ['--version']).error && 'systemd is not installed';
const notHere = namespacesUnavailable() ?? nodeOutOfReach();
const noTrace = spawnSync('strace', ['-V']).error && 'strace is not installed: apt-get install strace';

let shell: string;
let database: TestDatabase;

beforeAll(async () => {
  if (notHere !== undefined) return;
  const [backend, server] = await Promise.all([packaged('backend'), packaged('bore-server')]);
  shell = await installation({ backend, server });
  database = await createDatabase({ migrated: false });
}, PACKAGE_MS);

afterAll(() => database?.drop());

describe.each(units)('%s', (name) => {
  it('is understood by systemd, and its command is there', async ({ skip }) => {
    const reason = noAnalyze ?? notHere;
    if (reason !== undefined) skip(reason);
    const folder = await newFolder('units-');
    await cp(path.join(ROOT, 'deploy/systemd'), folder, { recursive: true });
    const file = path.join(folder, name.replace('@.', '@3000.'));
    const [program, args] = whereInstalled(shell, ['systemd-analyze', 'verify', '--man=no', file]);
    const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
    // other units of this machine may have faults of their own
    const about = `${stdout}${stderr}`.split('\n').filter((line) => line.includes('bore'));
    expect({ about, status }).toEqual({ about: [], status: 0 });
  });

  it('exposes little', ({ skip }) => {
    if (noAnalyze !== undefined) skip(noAnalyze);
    const file = path.join(ROOT, 'deploy/systemd', name);
    const args = ['security', '--offline=true', '--no-pager', `--threshold=${EXPOSURE_MAX * 10}`, file];
    const { status, stdout } = spawnSync('systemd-analyze', args, { encoding: 'utf8' });
    expect(Number(/exposure level for .*: ([\d.]+)/.exec(stdout)?.[1])).toBeLessThanOrEqual(EXPOSURE_MAX);
    expect(status).toBe(0);
  });

  it('lets V8 guard what it compiles, on processors that can, which this one may not be', async ({ skip }) => {
    if (noAnalyze !== undefined) skip(noAnalyze);
    const allowed = allowedCalls(await UnitFile.read(name));
    expect(['pkey_alloc', 'pkey_free', 'pkey_mprotect'].filter((call) => !allowed.has(call))).toEqual([]);
  });

  it('holds no secret, and takes its settings from a file that others cannot read', async () => {
    const unit = await UnitFile.read(name);
    expect(unit.one('EnvironmentFile')).toMatch(/^\/etc\/bore-platform\/(backend|bore-server)\.env$/);
    expect(unit.one('ExecStart')).not.toMatch(/key|secret|password/i);
    expect(unit.all('Environment')).toEqual(['NODE_ENV=production']);
    expect(unit.one('User')).toBe('bore');
  });
});

it('has the protections of the specification', async () => {
  const unit = await UnitFile.read('bore-server.service');
  for (const [key, value] of [
    ['NoNewPrivileges', 'yes'],
    ['PrivateTmp', 'yes'],
    ['ProtectSystem', 'strict'],
    ['ProtectHome', 'yes'],
    ['Restart', 'always'],
    ['WorkingDirectory', '/var/lib/bore'],
    ['StateDirectory', 'bore'],
  ] as const)
    expect(unit.one(key)).toBe(value);
});

it('waits longer for a program that stops than the program takes', async () => {
  const { SHUTDOWN_DRAIN_SECONDS } = readConfig({ ...SECRETS, DB_PASSWORD: 'x'.repeat(12) });
  const closeMs = Number(
    /CLOSE_TIMEOUT_MS = ([\d_]+)/.exec(await readFile(path.join(ROOT, 'src/main.ts'), 'utf8'))?.[1]?.replace('_', ''),
  );
  const backend = await UnitFile.read('bore-backend@.service');
  expect(Number(backend.one('TimeoutStopSec'))).toBeGreaterThanOrEqual(SHUTDOWN_DRAIN_SECONDS + closeMs / 1000 + 5);
  const { limits } = readOptions(['--secret', 'x']);
  const server = await UnitFile.read('bore-server.service');
  expect(Number(server.one('TimeoutStopSec'))).toBeGreaterThanOrEqual(limits.drainSeconds + 10);
  expect(Number(server.one('LimitNOFILE'))).toBeGreaterThan(2 * limits.maxConnections + limits.maxHandshakes);
});

describe('run as an ordinary user on a read-only machine, with the bits of /proc that are left', () => {
  const running: RunningProcess[] = [];

  afterAll(async () => {
    for (const each of running) await each.kill9();
  });

  /** Starts what a unit says, and returns it with where its system calls are written. */
  async function start(unit: UnitFile, instance: string, settings: NodeJS.ProcessEnv) {
    const folder = await newFolder('trace-');
    const trace = path.join(folder, 'calls');
    const [command, env] = commandOf(unit, instance, settings);
    const [program, args] = whereInstalled(shell, ['strace', '-f', '-qq', '-o', trace, ...command], folder);
    const started = new RunningProcess(program, args, env);
    running.push(started);
    return { process: started, trace };
  }

  const pidOf = (text: string): number => Number(/"pid":(\d+)/.exec(text)?.[1]);

  /** Both the limits that systemd sets and what it takes away are the process's. */
  async function expectBounds(pid: number, unit: UnitFile): Promise<void> {
    const status = await readFile(`/proc/${pid}/status`, 'utf8');
    expect(status).toMatch(new RegExp(`^Uid:\\s+${USER.uid}\\s`, 'm'));
    expect(status).toMatch(/^CapBnd:\s+0+$/m);
    const threads = Number(/^Threads:\s+(\d+)/m.exec(status)?.[1]);
    expect(threads).toBeLessThan(Number(unit.one('TasksMax')) / 2);
    const limits = await readFile(`/proc/${pid}/limits`, 'utf8');
    expect(/^Max open files\s+(\d+)/m.exec(limits)?.[1]).toBe(String(descriptorsHere(Number(unit.one('LimitNOFILE')))));
  }

  async function expectAllowed(unit: UnitFile, trace: string): Promise<void> {
    const { calls, families } = callsIn(await readFile(trace, 'utf8'));
    const allowed = allowedCalls(unit);
    expect([...calls].filter((call) => !allowed.has(call))).toEqual([]);
    expect(calls.size).toBeGreaterThan(20);
    const allowedFamilies = unit.one('RestrictAddressFamilies').split(' ');
    expect([...families].filter((family) => !allowedFamilies.includes(family))).toEqual([]);
  }

  it(
    'migrates, and then a backend serves, drains and ends with 0, within its system calls',
    async ({ skip }) => {
      const reason = noAnalyze ?? notHere ?? noTrace;
      if (reason !== undefined) skip(reason);
      const { host, port: dbPort, database: name, user, password } = database.address;
      const settings = {
        ...SECRETS,
        DB_HOST: host,
        DB_PORT: String(dbPort),
        DB_NAME: name,
        DB_USER: user,
        DB_PASSWORD: password,
        // long enough to be seen on a busy machine
        SHUTDOWN_DRAIN_SECONDS: '5',
      };
      const migration = await start(await UnitFile.read('bore-migrate.service'), '', settings);
      await migration.process.waitFor('applied: ');
      expect(await migration.process.exitCode()).toBe(0);

      const unit = await UnitFile.read('bore-backend@.service');
      const port = await ownPort();
      // PORT in the file is not that of the instance
      const { process: backend, trace } = await start(unit, String(port), { ...settings, PORT: '1' });
      const pid = pidOf(await backend.waitFor('"msg":"listening"'));
      const api = new Api(`http://127.0.0.1:${port}`);
      expect((await api.get('/health/ready')).status).toBe(200);
      const body = { email: 'unit@example.com', password: 'correct horse battery' };
      expect((await api.post('/api/v1/auth/signup', body)).status).toBe(201);
      expect((await api.get('/api/docs')).status).toBe(200);
      await expectBounds(pid, unit);
      process.kill(pid, 'SIGTERM');
      await until(async () => (await api.get('/health/ready')).status === 503, 'it drains');
      expect((await api.get('/health/live')).status).toBe(200);
      expect(await backend.exitCode()).toBe(0);
      await expectAllowed(unit, trace);
    },
    TRACED_MS,
  );

  it(
    'a bore-server takes the specification’s flags, keeps its state, drains and ends with 0, within its system calls',
    async ({ skip }) => {
      const reason = noAnalyze ?? notHere ?? noTrace;
      if (reason !== undefined) skip(reason);
      const unit = await UnitFile.read('bore-server.service');
      const [min, control, admin] = [await ownPort(3), await ownPort(), await ownPort()];
      const { process: server, trace } = await start(unit, '', {
        BORE_BACKEND_URL: 'http://127.0.0.1:9',
        BORE_BACKEND_API_KEY: SECRETS.INTERNAL_API_KEY,
        BORE_SERVER_ID: 'server-us-east-1',
        BORE_PORT_RANGE: `${min}:${min + 2}`,
        BORE_CONTROL_PORT: String(control),
        BORE_ADMIN_PORT: String(admin),
        BORE_BIND_ADDR: '127.0.0.1',
      });
      const pid = pidOf(await server.waitFor('"msg":"listening"'));
      expect((await new Api(`http://127.0.0.1:${admin}`).get('/health')).status).toBe(200);
      expect(server.output()).not.toContain('works without a state file');
      await expectBounds(pid, unit);
      process.kill(pid, 'SIGTERM');
      expect(await server.exitCode()).toBe(0);
      expect(server.output()).toContain('"msg":"stopped"');
      await expectAllowed(unit, trace);
    },
    TRACED_MS,
  );
});

it('takes the flags of the specification’s unit', () => {
  const flags =
    '--backend-url https://api.example.com --backend-api-key KEY --server-id server-us-east-1 --port-range 10000:20000';
  const options = readOptions(flags.replace('KEY', SECRETS.INTERNAL_API_KEY).split(' '));
  expect(options.access.backend?.serverId).toBe('server-us-east-1');
  expect(options.portRange).toEqual({ min: 10_000, max: 20_000 });
});
