import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { beforeEach, describe, expect, it } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { z } from 'zod';

import { readConfig } from '../../src/platform/config/config.js';
import { connectionsOfAll } from '../../src/platform/database/pool-size.js';
import {
  all,
  type Container,
  environmentOf,
  KUBECTL_MISSING,
  named,
  render,
  renderWith,
  Service,
  Workload,
} from '../harness/kubernetes.js';

/** What the manifests say of the programs, held to the programs. */

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const read = (file: string) => readFileSync(path.join(ROOT, file), 'utf8');
const pod = { name: 'bore-server-0', namespace: 'bore-platform' };

const run = (...args: string[]) => spawnSync(process.execPath, args, { cwd: ROOT, encoding: 'utf8' });
const Secret = z.object({
  metadata: z.object({ name: z.string() }),
  stringData: z.record(z.string(), z.string()),
});
function newSecrets(...args: string[]): Record<string, Record<string, string>> {
  const { stdout } = run('scripts/kubernetes-secrets.mjs', ...args);
  const secrets = parseAllDocuments(stdout).map((document) => Secret.parse(document.toJS()));
  return Object.fromEntries(secrets.map(({ metadata, stringData }) => [metadata.name, stringData]));
}

beforeEach((context) => {
  if (KUBECTL_MISSING) context.skip(KUBECTL_MISSING);
});

describe.each([
  ['overlays/development', () => render('overlays/development')],
  ['overlays/production', () => render('overlays/production')],
  ['overlays/production with one domain', () => renderWith('overlays/production', 'components/one-domain')],
])('%s', (overlay, manifestsOf) => {
  const load = () => {
    const manifests = manifestsOf();
    const workloads = all(manifests, Workload);
    const secrets = newSecrets('--admin', 'ops@example.com', '--database');
    const part = (name: string) => {
      const { spec } = named(workloads, name);
      const [container] = spec.template.spec.containers;
      if (!container) throw new Error(`${name} has no container`);
      return { spec, container, env: environmentOf(manifests, container, pod, secrets) };
    };
    const backend = part('bore-backend');
    return {
      manifests,
      backend: { ...backend, config: readConfig(backend.env) },
      server: part('bore-server'),
      migrate: part('bore-migrate'),
      services: all(manifests, Service),
    };
  };

  it('every variable is one that its program reads', () => {
    const readme = read('README.md');
    const table = readme.slice(readme.indexOf('## Configuration of the backend'), readme.indexOf('## bore-server'));
    const settings = [...table.matchAll(/^\| (`.+?`) +\|/gm)].flatMap(([, names = '']) =>
      [...names.matchAll(/`(\w+)`/g)].map(([, name]) => name),
    );
    const flags = [...run('dist/bore-server/main.js', '--help').stdout.matchAll(/env:\s+(\w+)/g)].map(
      ([, name]) => name,
    );
    expect([settings.length > 40, flags.length > 20]).toEqual([true, true]);
    const { backend, server, migrate } = load();
    const unread = ({ container, env }: { container: Container; env: object }, known: readonly unknown[]) =>
      // one that another is made of is read by Kubernetes
      Object.keys(env).filter(
        (name) => !known.includes(name) && !container.env.some(({ value }) => value?.includes(`$(${name})`)),
      );
    expect(unread(backend, settings)).toEqual([]);
    expect(unread(migrate, settings)).toEqual([]);
    expect(unread(server, flags)).toEqual([]);
    // nothing that was to be put in has been left
    expect(Object.values(server.env).filter((value) => value.includes('$('))).toEqual([]);
  });

  it('ports are those that the programs listen on, and where others look for them', () => {
    const { backend, server, services } = load();
    const ports = ({ ports: list }: Container) =>
      Object.fromEntries(list.map((port) => [port.name, port.containerPort]));
    expect(ports(backend.container)).toEqual({ http: backend.config.PORT });
    const { BORE_CONTROL_PORT, BORE_ADMIN_PORT, BORE_PEER_PORT } = server.env;
    expect(ports(server.container)).toEqual({
      control: Number(BORE_CONTROL_PORT),
      admin: Number(BORE_ADMIN_PORT),
      ...(overlay.includes('one domain') && { peers: Number(BORE_PEER_PORT) }),
    });
    const [api] = named(services, 'bore-backend').spec.ports;
    expect(server.env['BORE_BACKEND_URL']).toBe(`http://bore-backend:${api?.port}`);
    expect(server.env['BORE_ADMIN_URL']).toBe(`http://bore-server-0.bore-server.bore-platform:${BORE_ADMIN_PORT}`);
    expect(server.container.volumeMounts.map(({ mountPath }) => mountPath)).toEqual([server.env['BORE_DATA_DIR']]);
    expect(Number(server.env['BORE_MAX_TUNNELS'])).toBeLessThanOrEqual(Number(server.env['BORE_PORTS_PER_SERVER']));
  });

  it('the times of stopping add up', () => {
    const { backend, server } = load();
    const ms = (file: string, name: string) =>
      Number(new RegExp(`const ${name} = ([\\d_]+);`).exec(read(file))?.[1]?.replaceAll('_', ''));
    const closing = ms('src/main.ts', 'CLOSE_TIMEOUT_MS') / 1000;
    const grace = backend.spec.template.spec.terminationGracePeriodSeconds ?? 0;
    expect(grace).toBeGreaterThanOrEqual(backend.config.SHUTDOWN_DRAIN_SECONDS + closing + 5);
    const last =
      (ms('src/bore-server/reporter.ts', 'CALL_TIMEOUT_MS') +
        ms('src/bore-server/reporter.ts', 'LAST_CALL_TIMEOUT_MS') +
        ms('src/bore-server/main.ts', 'SAVE_TIMEOUT_MS')) /
      1000;
    expect(server.spec.template.spec.terminationGracePeriodSeconds).toBeGreaterThanOrEqual(
      Number(server.env['BORE_DRAIN_SECONDS']) + last + 5,
    );
    if (overlay === 'overlays/development') return;
    // an ingress controller that asks by itself has noticed by then
    const { periodSeconds = 0, failureThreshold = 0 } = backend.container.readinessProbe ?? {};
    expect(backend.config.SHUTDOWN_DRAIN_SECONDS).toBeGreaterThan(2 * periodSeconds * failureThreshold);
    expect(backend.spec['minReadySeconds']).toBeGreaterThanOrEqual(grace);
  });

  it('backends fit into the database', () => {
    const { manifests, backend } = load();
    const Scaler = z.looseObject({
      kind: z.literal('HorizontalPodAutoscaler'),
      spec: z.looseObject({ maxReplicas: z.int() }),
    });
    const Rolling = z.looseObject({
      rollingUpdate: z.looseObject({ maxSurge: z.int(), maxUnavailable: z.literal(0) }).optional(),
    });
    const [scaler] = all(manifests, Scaler);
    const surge = Rolling.parse(backend.spec['strategy']).rollingUpdate?.maxSurge;
    const { BACKEND_INSTANCES, DB_MAX_CONNECTIONS, DB_POOL_SIZE, REDIS_ENABLED } = backend.config;
    // one that a rolling update adds, and one that still drains
    expect(BACKEND_INSTANCES).toBe(scaler ? scaler.spec.maxReplicas + (surge ?? 0) + 1 : backend.spec.replicas);
    expect(connectionsOfAll(backend.config)).toBeLessThanOrEqual(DB_MAX_CONNECTIONS);
    expect(DB_POOL_SIZE).toBe(10);
    expect(REDIS_ENABLED).toBe(overlay !== 'overlays/development');
    // without Redis two must not run at once
    if (!REDIS_ENABLED) expect([backend.spec['strategy'], backend.spec.replicas]).toEqual([{ type: 'Recreate' }, 1]);
  });

  it('every key of a secret is one that there is', () => {
    const { backend, server, migrate } = load();
    const secrets = newSecrets('--admin', 'ops@example.com', '--database');
    const asked = [backend, server, migrate].flatMap(({ container }) =>
      container.env.flatMap(({ valueFrom }) => valueFrom?.secretKeyRef ?? []),
    );
    expect(asked.filter(({ name, key }) => secrets[name]?.[key] === undefined)).toEqual([]);
    const keys = new Set(asked.filter(({ name }) => name === 'bore-platform').map(({ key }) => key));
    expect(keys).toEqual(new Set(Object.keys(secrets['bore-platform'] ?? {})));
    const External = z.object({ spec: z.object({ data: z.array(z.object({ secretKey: z.string() })) }) });
    const { spec } = External.parse(parse(read('k8s/references/external-secrets/external-secret.yaml')));
    expect(new Set(spec.data.map(({ secretKey }) => secretKey))).toEqual(keys);
  });

  it('images are of this version', () => {
    const { version } = z.object({ version: z.string() }).parse(JSON.parse(read('package.json')));
    const images = all(load().manifests, Workload).flatMap(({ spec }) =>
      spec.template.spec.containers.map(({ image }) => image).filter((image) => image.includes('bore-platform/')),
    );
    expect(images.map((image) => image.replace('registry.example.com/', '')).sort()).toEqual([
      `bore-platform/backend:${version}`,
      `bore-platform/backend:${version}`,
      `bore-platform/bore-server:${version}`,
    ]);
  });
});

describe('what goes with them', () => {
  it('the generated files are what would be generated', () => {
    const { status, stderr } = run('scripts/kubernetes-files.mjs', '--check');
    expect([status, stderr]).toEqual([0, '']);
  });

  it('secrets are others each time, and the backend takes them', () => {
    const [first, second] = [newSecrets(), newSecrets()].map((secrets) =>
      Object.values(secrets['bore-platform'] ?? {}),
    );
    expect(new Set([...(first ?? []), ...(second ?? [])]).size).toBe(10);
  });

  it('the database is the one that CloudNativePG makes', () => {
    const Cluster = z.looseObject({
      kind: z.literal('Cluster'),
      metadata: z.looseObject({ name: z.string() }),
      spec: z.looseObject({
        bootstrap: z.object({ initdb: z.object({ database: z.string(), owner: z.string() }) }),
        postgresql: z.object({ parameters: z.record(z.string(), z.string()) }),
      }),
    });
    const [cluster] = all(render('references/postgresql'), Cluster);
    const manifests = render('overlays/production');
    const [container] = named(all(manifests, Workload), 'bore-backend').spec.template.spec.containers;
    const { DB_HOST, DB_NAME, DB_USER, DB_MAX_CONNECTIONS } = readConfig(
      container ? environmentOf(manifests, container, pod, newSecrets('--database')) : {},
    );
    expect([DB_HOST, DB_NAME, DB_USER, String(DB_MAX_CONNECTIONS)]).toEqual([
      `${cluster?.metadata.name}-rw`,
      cluster?.spec.bootstrap.initdb.database,
      cluster?.spec.bootstrap.initdb.owner,
      cluster?.spec.postgresql.parameters['max_connections'],
    ]);
    expect(container?.env.find(({ name }) => name === 'DB_PASSWORD')?.valueFrom?.secretKeyRef?.name).toBe(
      `${cluster?.metadata.name}-app`,
    );
  });

  it('Redis is the one that the chart makes, and evicts nothing', () => {
    const Values = z.looseObject({
      fullnameOverride: z.string(),
      replicas: z.int(),
      redis: z.looseObject({ masterGroupName: z.string(), config: z.record(z.string(), z.unknown()) }),
      auth: z.literal(true),
      existingSecret: z.literal('bore-platform'),
      authKey: z.literal('REDIS_PASSWORD'),
      sentinel: z.looseObject({
        auth: z.literal(true),
        existingSecret: z.literal('bore-platform'),
        authKey: z.literal('REDIS_SENTINEL_PASSWORD'),
      }),
    });
    const values = Values.parse(parse(read('k8s/references/redis/values.yaml')));
    const settings = read('k8s/overlays/production/backend.env');
    const nodes = Array.from({ length: values.replicas }, (_, i) => `${values.fullnameOverride}-announce-${i}:26379`);
    expect(settings).toContain(`REDIS_NODES=${nodes.join()}\n`);
    expect(settings).toContain(`REDIS_SENTINEL_NAME=${values.redis.masterGroupName}\n`);
    expect(values.redis.config['maxmemory-policy']).toBe('noeviction');
  });
});
