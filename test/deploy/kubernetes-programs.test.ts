import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import { afterEach, beforeEach, expect, it } from 'vitest';
import { z } from 'zod';

import { type Backend, SECRETS, startBackend } from '../harness/backend.js';
import { Api } from '../harness/api.js';
import { type BoreServerProcess, newDataDir, startBoreServer } from '../harness/bore-server.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import {
  all,
  type Container,
  environmentOf,
  KUBECTL_MISSING,
  type Manifest,
  named,
  render,
  renderWith,
  Service,
  Workload,
} from '../harness/kubernetes.js';
import { ownPort } from '../harness/own-ports.js';
import { until } from '../harness/until.js';

/** The real programs, started with the environment that a kubelet would make of the manifests. */

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PASSWORD = 'correct horse battery';
const ADMIN_EMAIL = 'ops@example.com';
/** Five programs, one after another, on a busy machine. */
const TIMEOUT_MS = 120_000;
/** One that should have ended by itself does not hold up the suite. */
const END_TIMEOUT_MS = 60_000;
/** On this address nothing else of the tests is: a port that every pod has can be the same here. */
const ADDRESS = '127.0.9.1';

let database: TestDatabase | undefined;
let backend: Backend | undefined;
let servers: BoreServerProcess[] = [];

beforeEach((context) => {
  if (KUBECTL_MISSING) context.skip(KUBECTL_MISSING);
});

afterEach(async () => {
  await Promise.all(servers.map((server) => server.stop()));
  servers = [];
  await backend?.stop();
  await database?.drop();
  [backend, database] = [undefined, undefined];
});

function containerOf(manifests: readonly Manifest[], name: string): Container {
  const [container] = named(all(manifests, Workload), name).spec.template.spec.containers;
  if (!container) throw new Error(`${name} has no container`);
  return container;
}

/** Of a pod; what is this machine's and not the cluster's in place of the manifests'. */
function environment(manifests: readonly Manifest[], container: Container, name: string, here: NodeJS.ProcessEnv) {
  const secrets = {
    'bore-platform': { ...SECRETS, ADMIN_EMAIL, ADMIN_PASSWORD: PASSWORD },
    'bore-db-app': { password: database?.address.password ?? '' },
  };
  return { ...environmentOf(manifests, container, { name, namespace: 'bore-platform' }, secrets), ...here };
}

function databaseHere(): NodeJS.ProcessEnv {
  const { host, port, database: name, user } = z.custom<TestDatabase>().parse(database).address;
  return { DB_HOST: host, DB_PORT: String(port), DB_NAME: name, DB_USER: user };
}

async function startBackendOf(manifests: readonly Manifest[], options: { expectFailure?: boolean } = {}) {
  const container = containerOf(manifests, 'bore-backend');
  // long enough to be looked at while it drains
  const drain = { SHUTDOWN_DRAIN_SECONDS: '5' };
  const here = { HOST: '127.0.0.1', PORT: String(await ownPort()), LOG_LEVEL: 'info', ...drain, ...databaseHere() };
  const env = environment(manifests, container, 'bore-backend-x', here);
  return startBackend({ database: z.custom<TestDatabase>().parse(database), env, ...options });
}

function migrate(manifests: readonly Manifest[]) {
  const container = containerOf(manifests, 'bore-migrate');
  const [command = '', ...args] = container.command;
  const env = environment(manifests, container, 'bore-migrate-x', databaseHere());
  return spawnSync(command, args, {
    cwd: ROOT,
    env: { PATH: process.env['PATH'], ...env },
    encoding: 'utf8',
    timeout: END_TIMEOUT_MS,
  });
}

it(
  'a backend waits for the job that migrates, answers its probes, and drains within the time that its pod has',
  { timeout: TIMEOUT_MS },
  async () => {
    const manifests = render('overlays/development');
    const container = containerOf(manifests, 'bore-backend');
    database = await createDatabase({ migrated: false });
    // the kubelet starts it again and again
    const early = await startBackendOf(manifests, { expectFailure: true });
    expect(await early.exitCode()).toBe(1);
    expect(early.output()).toContain('the database lacks');

    const job = migrate(manifests);
    expect([job.status, job.stderr]).toEqual([0, '']);
    expect(migrate(manifests).stdout).toContain('up to date');
    backend = await startBackendOf(manifests);
    const api = new Api(backend.url);
    const { startupProbe, livenessProbe, readinessProbe } = container;
    const [live = '', ready = ''] = [livenessProbe, readinessProbe].map((probe) => probe?.httpGet?.path);
    expect([startupProbe?.httpGet?.path, live === ready]).toEqual([live, false]);
    expect([(await api.get(live)).status, (await api.get(ready)).status]).toEqual([200, 200]);
    const Monitor = z.looseObject({
      kind: z.literal('ServiceMonitor'),
      metadata: z.looseObject({ name: z.string() }),
      spec: z.looseObject({ endpoints: z.array(z.looseObject({ path: z.string() })) }),
    });
    const monitor = named(all(render('overlays/production'), Monitor), 'bore-backend');
    for (const { path } of monitor.spec.endpoints) expect((await api.get(path)).text).toContain('http_requests_total');

    const began = performance.now();
    backend.signal('SIGTERM');
    // endpoints go: whoever still comes is served
    await until(async () => (await api.get(ready)).status === 503, 'the backend says that it drains');
    expect((await api.get(live)).status).toBe(200);
    expect(await backend.exitCode()).toBe(0);
    const { terminationGracePeriodSeconds: grace = 0 } = named(all(manifests, Workload), 'bore-backend').spec.template
      .spec;
    expect((performance.now() - began) / 1000).toBeLessThan(grace);
  },
);

it.each([
  ['names of their own', () => render('overlays/production')],
  // where the control plane refuses ranges that overlap
  ['one name', () => renderWith('overlays/production', 'components/one-domain')],
])(
  'bore-servers of one template and %s have ports of their own, those of their services',
  { timeout: TIMEOUT_MS },
  async (_, manifestsOf) => {
    const manifests = manifestsOf();
    database = await createDatabase();
    backend = await startBackendOf(render('overlays/development'));
    const container = containerOf(manifests, 'bore-server');
    const set = named(all(manifests, Workload), 'bore-server').spec;
    const pods = Array.from({ length: set.replicas ?? 0 }, (__, i) => `bore-server-${i}`);
    expect(pods).toHaveLength(3);
    for (const name of pods) {
      const env = environment(manifests, container, name, {
        BORE_BACKEND_URL: backend.url,
        BORE_CONTROL_PORT: '0',
        BORE_ADMIN_PORT: '0',
        BORE_DATA_DIR: await newDataDir(),
        BORE_DRAIN_SECONDS: '1',
      });
      // names of the cluster lead nowhere here
      delete env['BORE_ADMIN_URL'];
      if (env['BORE_PEER_HOST'] !== undefined) Object.assign(env, { BORE_PEER_HOST: ADDRESS, BORE_PEER_PORT: '0' });
      servers.push(
        await startBoreServer({ backend, serverId: name, ports: { min: 1, max: 1 }, address: ADDRESS, env }),
      );
    }

    const Range = z.object({ min: z.int(), max: z.int() });
    const ranges = servers.map((server) => {
      const line = server
        .output()
        .split('\n')
        .find((text) => text.includes('"msg":"listening"'));
      return z.object({ portRange: Range }).parse(JSON.parse(line ?? '{}')).portRange;
    });
    const { BORE_PORT_RANGE = '', BORE_PORTS_PER_SERVER: size } = environment(manifests, container, 'x-0', {});
    expect(ranges.map(({ min, max }) => max - min + 1)).toEqual(pods.map(() => Number(size)));
    const ports = ranges.flatMap(({ min, max }) => Array.from({ length: max - min + 1 }, (__, i) => min + i));
    expect(new Set(ports).size).toBe(3 * Number(size));
    const [first = 0, last = 0] = BORE_PORT_RANGE.split(':').map(Number);
    expect([Math.min(...ports), Math.max(...ports) <= last]).toEqual([first, true]);

    const services = all(manifests, Service);
    for (const [i, name] of pods.entries()) {
      const { spec } = named(services, name);
      const open = spec.ports.filter((port) => port.name !== 'control').map(({ port }) => port);
      expect([open[0], open.at(-1), open.length]).toEqual([ranges[i]?.min, ranges[i]?.max, Number(size)]);
      expect(spec.ports.every(({ port, targetPort }) => port === targetPort || targetPort === 'control')).toBe(true);
      // a server that drains or that lost its control plane carries on
      expect(spec).toMatchObject({
        selector: { 'statefulset.kubernetes.io/pod-name': name },
        publishNotReadyAddresses: true,
        externalTrafficPolicy: 'Local',
      });
    }

    const { livenessProbe, readinessProbe, startupProbe } = container;
    for (const server of servers)
      for (const probe of [startupProbe, livenessProbe, readinessProbe])
        expect((await fetch(`${server.adminUrl}${probe?.httpGet?.path}`)).status, probe?.httpGet?.path).toBe(200);

    const login = await new Api(backend.url).post('/api/v1/auth/login', { email: ADMIN_EMAIL, password: PASSWORD });
    const admin = new Api(backend.url).withToken(login.body.accessToken);
    const { items } = (await admin.get('/api/v1/admin/servers')).body;
    const View = z.array(z.looseObject({ id: z.string(), host: z.string(), state: z.string(), openTunnels: z.int() }));
    const isShared = container.env.some(({ name }) => name === 'BORE_PEER_PORT');
    expect(View.parse(items).map(({ id, host, state }) => [id, host, state])).toEqual(
      pods.map((name) => [name, isShared ? 'tunnels.example.com' : `${name}.tunnels.example.com`, 'online']),
    );
    expect(items.map(({ maxConcurrentTunnels }: { maxConcurrentTunnels: number }) => maxConcurrentTunnels)).toEqual(
      pods.map(() => Number(size)),
    );
  },
);

it('a pod for which the range has no ports left says so, and does not start', { timeout: TIMEOUT_MS }, async () => {
  const manifests = render('overlays/production');
  const container = containerOf(manifests, 'bore-server');
  const env = environment(manifests, container, 'bore-server-10', { BORE_DATA_DIR: await newDataDir() });
  const { status, stderr } = spawnSync(process.execPath, container.command.slice(1), {
    cwd: ROOT,
    env,
    encoding: 'utf8',
    timeout: END_TIMEOUT_MS,
  });
  expect([status, stderr]).toEqual([
    1,
    'bore-server could not start: --port-range 10000:10399 has 40 ports for 10 servers, not for one of ordinal 10\n',
  ]);
});
