/** compose.yaml, and that every setting in what we ship for machines and containers is one that the programs know. */
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { cp, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { parseEnv, promisify } from 'node:util';

import { beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';

import { readOptions } from '../../src/bore-server/options.js';
import { readConfig } from '../../src/platform/config/config.js';
import { nginxUnavailable } from '../harness/nginx.js';
import { readDockerfile } from './dockerfile.js';
import { newFolder, ROOT } from './packaged.js';

const TEXT = readFileSync(path.join(ROOT, 'compose.yaml'), 'utf8');

const Names = z.union([z.array(z.string()), z.record(z.string(), z.unknown()).transform((map) => Object.keys(map))]);
const Service = z.looseObject({
  image: z.string(),
  build: z.object({ context: z.string(), target: z.string() }).optional(),
  command: z.array(z.string()).optional(),
  env_file: z.string().optional(),
  environment: z.record(z.string(), z.string()).default({}),
  secrets: z.array(z.string()).default([]),
  volumes: z.array(z.string()).default([]),
  ports: z.array(z.string()).default([]),
  tmpfs: z.array(z.string()).default([]),
  depends_on: Names.default([]),
  networks: z.object({ default: z.object({ ipv4_address: z.string() }) }).optional(),
  read_only: z.boolean(),
  cap_drop: z.array(z.string()),
  cap_add: z.array(z.string()).default([]),
  security_opt: z.array(z.string()),
  stop_grace_period: z.string().optional(),
});
const Compose = z.looseObject({
  services: z.record(z.string(), Service),
  secrets: z.record(z.string(), z.object({ file: z.string() })),
  volumes: z.record(z.string(), z.null()),
});

const compose = Compose.parse(parse(TEXT, { merge: true }));
const services = Object.entries(compose.services);
const backends = services.filter(([name]) => name.startsWith('backend-'));
const servers = services.filter(([name]) => name.startsWith('bore-'));
const addressOf = (name: string) => compose.services[name]?.networks?.default.ipv4_address;

/** The secrets of an installation of the test's own. */
let prepared: string;
beforeAll(async () => {
  prepared = path.join(await newFolder('compose-'), 'secrets');
  execFileSync(process.execPath, ['scripts/compose-secrets.mjs', prepared], { cwd: ROOT });
});

const settingsIn = (file: string) => parseEnv(readFileSync(path.join(prepared, file), 'utf8'));

describe('compose.yaml', () => {
  // Debian's is in Python, and starts slowly
  it('is understood by Docker Compose', { timeout: 120_000 }, async ({ skip }) => {
    const compose2 = spawnSync('docker', ['compose', 'version']).status === 0 ? ['docker', 'compose'] : undefined;
    const compose1 = spawnSync('docker-compose', ['version']).status === 0 ? ['docker-compose'] : undefined;
    const [program, ...args] = compose2 ?? compose1 ?? [];
    if (program === undefined) return skip('Docker Compose is not installed: apt-get install docker-compose');
    // a copy, because it reads the files of secrets
    const clone = await newFolder('clone-');
    for (const name of ['compose.yaml', 'Dockerfile', 'deploy', 'monitoring'])
      await cp(path.join(ROOT, name), path.join(clone, name), { recursive: true });
    await mkdir(path.join(clone, '.data'));
    await cp(prepared, path.join(clone, '.data/compose'), { recursive: true });
    const { stdout } = await promisify(execFile)(program, [...args, 'config'], { cwd: clone });
    const understood = z.looseObject({ services: z.record(z.string(), z.unknown()) }).parse(parse(stdout));
    expect(Object.keys(understood.services).sort()).toEqual(services.map(([name]) => name).sort());
  });

  it('gives no program a privilege that it does not need', () => {
    for (const [name, service] of services) {
      expect(service.read_only, name).toBe(true);
      expect(service.cap_drop, name).toEqual(['ALL']);
      expect(service.security_opt, name).toEqual(['no-new-privileges:true']);
      if (service.build) expect(service.cap_add, name).toEqual([]);
      for (const text of ['privileged', 'network_mode', 'pid', 'ipc', 'devices'])
        expect(service, name).not.toHaveProperty(text);
      expect(JSON.stringify(service.volumes), name).not.toContain('docker.sock');
    }
  });

  it('publishes on the loopback address only, and pins every image', () => {
    for (const [name, { ports, image }] of services) {
      for (const port of ports) expect(port, name).toMatch(/^127\.0\.0\.1:/);
      expect(image, name).toMatch(/:v?\d+\.\d+(\.\d+)?(-bookworm)?$/);
    }
  });

  it('names stages, files, folders and services that are there', () => {
    const stages = readDockerfile().stages.map(({ name }) => name);
    for (const [name, { build, volumes, depends_on, secrets }] of services) {
      if (build) expect(stages, name).toContain(build.target);
      for (const each of depends_on) expect(compose.services, name).toHaveProperty([each]);
      for (const each of secrets) expect(compose.secrets, name).toHaveProperty([each]);
      for (const source of volumes.map((volume) => volume.split(':')[0] ?? '')) {
        if (source.startsWith('.')) expect(existsSync(path.join(ROOT, source)), source).toBe(true);
        else expect(compose.volumes, name).toHaveProperty([source]);
      }
    }
    for (const { file } of Object.values(compose.secrets))
      expect(existsSync(path.join(prepared, path.basename(file))), file).toBe(true);
  });

  it('holds no secret; they are made once, and nobody else can read them', async () => {
    expect(TEXT).not.toMatch(/(SECRET|PASSWORD|API_KEY): [^/\s]/);
    expect((await stat(prepared)).mode & 0o777).toBe(0o700);
    for (const file of ['backend.env', 'bore-server.env'])
      expect((await stat(path.join(prepared, file))).mode & 0o777, file).toBe(0o600);
    const before = await readFile(path.join(prepared, 'backend.env'), 'utf8');
    const said = execFileSync(process.execPath, ['scripts/compose-secrets.mjs', prepared], {
      cwd: ROOT,
      encoding: 'utf8',
    });
    expect(await readFile(path.join(prepared, 'backend.env'), 'utf8')).toBe(before);
    const values = Object.values(settingsIn('backend.env')).filter((value) => value !== 'admin@example.com');
    expect(new Set(values).size).toBe(6);
    for (const value of values) expect(said).not.toContain(value);
    expect(settingsIn('bore-server.env')['BORE_BACKEND_API_KEY']).toBe(settingsIn('backend.env')['INTERNAL_API_KEY']);
  });

  it('gives backends settings that they take, and as many as there are fit into PostgreSQL', () => {
    expect(backends).toHaveLength(3);
    for (const [, { environment }] of backends) {
      const config = readConfig({ ...settingsIn('backend.env'), ...known(environment) });
      expect(config.BACKEND_INSTANCES).toBe(backends.length);
      expect(config.REDIS_ENABLED).toBe(true);
      expect(config.TRUST_PROXY).toEqual([addressOf('nginx')]);
      expect(compose.services).toHaveProperty([config.DB_HOST]);
      expect(compose.services).toHaveProperty([config.REDIS_HOST]);
    }
  });

  it('gives bore-servers settings that they take, with ports of their own that nginx publishes', () => {
    expect(servers).toHaveLength(3);
    const published = compose.services['nginx']?.ports.join(' ');
    const stream = readFileSync(path.join(ROOT, 'deploy/nginx/stream.conf'), 'utf8');
    for (const [name, { environment }] of servers) {
      const options = asEnvironment({ ...settingsIn('bore-server.env'), ...known(environment) }, () => readOptions([]));
      const { min, max } = options.portRange;
      expect(published, name).toContain(`127.0.0.1:${min}-${max}:${min}-${max}`);
      expect(options.access.backend).toMatchObject({ serverId: name, url: `http://${addressOf('nginx')}` });
      expect(options.peerHost).toBe(addressOf(name));
      expect(options.proxyProtocolFrom).toEqual([`${addressOf('nginx')}/32`]);
      // in deploy/nginx its address ends as it does here, and the port is of its range
      const last = addressOf(name)?.split('.').at(-1);
      const [, low, high] = new RegExp(`listen (\\d+)-(\\d+) [^}]*proxy_pass 10\\.0\\.0\\.${last}:`).exec(stream) ?? [];
      expect(Number(low), name).toBeLessThanOrEqual(min);
      expect(Number(high), name).toBeGreaterThanOrEqual(max);
    }
  });

  it('nginx takes its files, rendered as its command does', async ({ skip }) => {
    const reason = await nginxUnavailable();
    if (reason !== undefined) skip(reason);
    const folder = await newFolder('nginx-');
    const here = (text: string) =>
      text
        .replaceAll('/etc/bore/', `${ROOT}/deploy/`)
        .replaceAll('/run/', `${folder}/`)
        .replaceAll('/dev/stderr', `${folder}/error.log`)
        .replaceAll('/dev/stdout', `${folder}/access.log`)
        .replace('user nginx;', process.getuid?.() === 0 ? 'user root root;' : '');
    const [, , line = ''] = compose.services['nginx']?.command ?? [];
    // Debian's nginx has its stream module apart
    const module = '/usr/lib/nginx/modules/ngx_stream_module.so';
    const main = here(await readFile(path.join(ROOT, 'deploy/compose/nginx.conf'), 'utf8'));
    await writeFile(path.join(folder, 'nginx.conf'), `${existsSync(module) ? `load_module ${module};\n` : ''}${main}`);
    // it listens for a moment: at an address where nobody else does
    const ownAddress = `sed -i -E 's/listen ([0-9])/listen 127.0.9.2:\\1/' ${folder}/api.conf ${folder}/stream.conf`;
    const rendering = here(line).replace(
      /exec nginx .*$/,
      `${ownAddress} && nginx -t -e ${folder}/error.log -c ${folder}/nginx.conf`,
    );
    const { status, stderr } = spawnSync('sh', ['-c', rendering], {
      encoding: 'utf8',
      env: { PATH: `${process.env['PATH']}:/usr/sbin` },
    });
    const log = await readFile(path.join(folder, 'error.log'), 'utf8').catch(() => '');
    expect(status, stderr + log).toBe(0);
    const rendered =
      (await readFile(path.join(folder, 'api.conf'), 'utf8')) +
      (await readFile(path.join(folder, 'stream.conf'), 'utf8'));
    const named = new Set([...rendered.matchAll(/10\.213\.7\.\d+/g)].map(([address]) => address));
    expect(named).toEqual(new Set([...backends, ...servers].map(([name]) => addressOf(name))));
    expect(rendered).not.toMatch(/10\.0\.0\.1\d/);
  });

  it('Prometheus takes its file and the rules, and asks every program', async ({ skip }) => {
    if (spawnSync('promtool', ['--version']).error) skip('promtool is not installed: apt-get install prometheus');
    const folder = await newFolder('prometheus-');
    await cp(path.join(ROOT, 'deploy/compose/prometheus.yml'), path.join(folder, 'prometheus.yml'));
    await cp(path.join(ROOT, 'monitoring'), path.join(folder, 'rules'), { recursive: true });
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'config', `${folder}/prometheus.yml`], {
      encoding: 'utf8',
    });
    expect({ status, stdout, stderr }).toMatchObject({ status: 0 });
    const text = await readFile(path.join(folder, 'prometheus.yml'), 'utf8');
    for (const [name] of backends) expect(text).toContain(`'${name}:3000'`);
    for (const [name] of servers) expect(text).toContain(`'${name}:7836'`);
  });

  it('waits longer for programs that stop than they take', () => {
    const { SHUTDOWN_DRAIN_SECONDS } = readConfig({ ...settingsIn('backend.env') });
    for (const [name, { stop_grace_period }] of backends)
      expect(Number.parseInt(stop_grace_period ?? '', 10), name).toBeGreaterThanOrEqual(SHUTDOWN_DRAIN_SECONDS + 15);
    const { limits } = readOptions(['--secret', 'x']);
    for (const [name, { stop_grace_period }] of servers)
      expect(Number.parseInt(stop_grace_period ?? '', 10), name).toBeGreaterThanOrEqual(limits.drainSeconds + 10);
  });
});

describe('every setting that is named', () => {
  const README = readFileSync(path.join(ROOT, 'README.md'), 'utf8');
  const OPTIONS =
    readFileSync(path.join(ROOT, 'docs/bore-server.md'), 'utf8') +
    execFileSync(process.execPath, ['dist/bore-server/main.js', '--help'], { cwd: ROOT, encoding: 'utf8' });

  it.each([...backends, ...servers])('%s', (name, { environment }) => {
    for (const variable of Object.keys(environment))
      expect(name.startsWith('bore-') ? OPTIONS : README, name).toContain(variable);
  });

  it('in docs, units, the ecosystem file and the Dockerfile', async () => {
    const files = [
      'Dockerfile',
      'docs/systemd.md',
      'docs/containers.md',
      'deploy/pm2/ecosystem.config.cjs',
      ...(await readdir(path.join(ROOT, 'deploy/systemd'))).map((file) => `deploy/systemd/${file}`),
    ];
    /** Of the ecosystem file, Docker and others: explained where they stand. */
    const others = /^(BORE_HOME|BORE_SETTINGS|BORE_BACKENDS|NODE_IMAGE|NODE_ENV|PM2_\w+|XDG_CONFIG_HOME|AF_\w+)$/;
    for (const file of files) {
      const text = await readFile(path.join(ROOT, file), 'utf8');
      const names = new Set(text.match(/\b[A-Z][A-Z0-9]*(_[A-Z0-9]+)+\b/g));
      for (const name of names) {
        if (others.test(name)) continue;
        expect(README.includes(`\`${name}\``) || OPTIONS.includes(name), `${file}: ${name}`).toBe(true);
      }
    }
  });
});

/** Without what Compose puts in: the default counts. */
function known(environment: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment).map(([name, value]) => [name, value.replace(/\$\{\w+:-([^}]*)\}/, '$1')]),
  );
}

/** Runs `work` with these variables set, as the process would have them. */
function asEnvironment<T>(variables: Readonly<Record<string, string | undefined>>, work: () => T): T {
  const before = { ...process.env };
  try {
    Object.assign(process.env, variables);
    return work();
  } finally {
    for (const name of Object.keys(variables)) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
  }
}
