/** Who may see metrics; several backends on one host; and how Prometheus finds bore-servers. */
import { spawnSync } from 'node:child_process';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import path from 'node:path';

import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';

import { isPrometheusInstalled } from '../../src/local/prometheus.js';
import { ControlPlane } from '../api/control-plane.js';
import { Api } from '../harness/api.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { type BoreServerProcess, startBoreServer } from '../harness/bore-server.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { scrape } from '../harness/metrics.js';
import { ownPort } from '../harness/own-ports.js';
import { RunningProcess } from '../harness/running-process.js';
import { until } from '../harness/until.js';

const TOKEN = 'metrics-0123456789abcdef0123456789abcdef';
const BEARER = { authorization: `Bearer ${TOKEN}` };
const PATHS = ['/metrics', '/metrics/bore-servers', '//metrics', '/metrics/', '/metrics?name[]=up', '/METRICS'];

/** Each starts some backends, which takes its time on a busy machine. */
const PATIENT = { timeout: 120_000 };

let database: TestDatabase;
const backends: Backend[] = [];

beforeAll(async () => {
  database = await createDatabase();
});

afterEach(async () => {
  for (const backend of backends.splice(0)) await backend.stop();
});

afterAll(() => database?.drop());

async function start(env: NodeJS.ProcessEnv = {}): Promise<Backend> {
  const backend = await startBackend({ database, env });
  backends.push(backend);
  return backend;
}

const statusOf = async (url: string, headers: Record<string, string> = {}) => (await fetch(url, { headers })).status;

describe('without a setting', () => {
  it('metrics are for who comes directly from this host or a private network', PATIENT, async () => {
    const { url } = await start();
    expect(await statusOf(`${url}/metrics`)).toBe(200);
    expect(await statusOf(`${url}/metrics/bore-servers`)).toBe(200);
    for (const header of ['x-forwarded-for', 'forwarded', 'via', 'x-real-ip']) {
      for (const name of ['/metrics', '/metrics/bore-servers'])
        expect(await statusOf(`${url}${name}`, { [header]: '127.0.0.1' }), header).toBe(403);
    }
    const refused = await new Api(url, { 'x-forwarded-for': '10.0.0.1' }).get('/metrics');
    expect(refused.body).toMatchObject({ code: 'FORBIDDEN', detail: expect.stringContaining('METRICS_TOKEN') });
    expect(refused.text).not.toContain('bore_');
    // what a proxy passes on to the rest of the API is as ever
    expect(await statusOf(`${url}/health/live`, { 'x-forwarded-for': '10.0.0.1' })).toBe(200);
  });

  it.for([
    { address: '203.0.113.77', status: 403, kind: 'the public' },
    { address: '100.64.0.77', status: 200, kind: 'a cluster of pods (RFC 6598)' },
  ])('for an address of $kind, though it is ours: $status', PATIENT, async ({ address, status }, context) => {
    const added = spawnSync('ip', ['addr', 'add', `${address}/32`, 'dev', 'lo']);
    const isThere = Object.values(networkInterfaces()).some((all) => all?.some((own) => own.address === address));
    if (!isThere) return context.skip(`no such address can be had here: ${String(added.stderr ?? added.error)}`);
    try {
      const { url } = await start({ HOST: address });
      const api = new Api(url.replace('127.0.0.1', address));
      expect((await api.get('/metrics')).status).toBe(status);
      expect((await api.get('/health/live')).status).toBe(200);
    } finally {
      if (added.status === 0) spawnSync('ip', ['addr', 'del', `${address}/32`, 'dev', 'lo']);
    }
  });
});

describe('METRICS_TOKEN', () => {
  it('is asked of everybody, in every spelling of the path', PATIENT, async () => {
    const { url } = await start({ METRICS_TOKEN: TOKEN });
    const wrong = [undefined, 'Bearer', `Bearer ${TOKEN}x`, `Bearer ${TOKEN.slice(1)}`, `Basic ${TOKEN}`, TOKEN];
    for (const authorization of wrong) {
      const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
      for (const name of PATHS) {
        const { status, text } = await new Api(url, headers).get(name);
        // a path that is not quite one of ours has no route, or none for its method
        expect([401, 404, 405], name).toContain(status);
        expect(text).not.toMatch(/bore_|targets/);
      }
    }
    const refused = await fetch(`${url}/metrics`);
    expect([refused.status, refused.headers.get('www-authenticate')]).toEqual([401, 'Bearer']);
    expect(await statusOf(`${url}/metrics`, BEARER)).toBe(200);
    expect(await statusOf(`${url}/metrics/bore-servers`, BEARER)).toBe(200);
    // from far, and through a proxy
    expect(await statusOf(`${url}/metrics`, { ...BEARER, 'x-forwarded-for': '198.51.100.1' })).toBe(200);
  });

  it('of a bore-server is asked for its metrics, and for nothing else', PATIENT, async () => {
    const server = await startBoreServer({
      secret: 'alone',
      ports: { min: 10_000, max: 10_009 },
      address: '127.0.2.65',
      env: { BORE_METRICS_TOKEN: TOKEN },
    });
    expect(await statusOf(`${server.adminUrl}/metrics`)).toBe(401);
    expect(await statusOf(`${server.adminUrl}/metrics`, { authorization: 'Bearer x' })).toBe(401);
    expect((await scrape(server.adminUrl, BEARER)).value('bore_server_sessions')).toBe(0);
    expect(await statusOf(`${server.adminUrl}/health`)).toBe(200);
    await server.stop();
  });

  it('must be long, and is not shown', PATIENT, async () => {
    const short = await startBackend({ database, env: { METRICS_TOKEN: 'short' }, expectFailure: true });
    expect(await short.exitCode()).toBe(1);
    expect(short.output()).toContain('METRICS_TOKEN must have at least 32 characters');
    const backend = await start({ METRICS_TOKEN: TOKEN, LOG_LEVEL: 'trace' });
    await scrape(backend.url, BEARER);
    await fetch(`${backend.url}/metrics`, { headers: { authorization: `Bearer ${TOKEN}x` } });
    expect(backend.output()).not.toContain(TOKEN);
  });
});

describe('METRICS_PORT', () => {
  it('has metrics, which the API’s port has not then', PATIENT, async () => {
    const port = await ownPort();
    const { url } = await start({ METRICS_PORT: String(port), METRICS_TOKEN: TOKEN });
    for (const name of PATHS) expect([404, 405], name).toContain(await statusOf(`${url}${name}`, BEARER));
    expect(await statusOf(`${url}/metrics`, BEARER)).toBe(404);
    const own = `http://127.0.0.1:${port}`;
    expect((await scrape(own, BEARER)).value('bore_build_info')).toBe(1);
    expect(await statusOf(`${own}/metrics/bore-servers`, BEARER)).toBe(200);
    expect(await statusOf(`${own}/metrics`)).toBe(401);
    expect(await statusOf(`${own}/metrics/bore-servers`)).toBe(401);
    for (const name of ['/', '/api/v1/auth/me', '/health']) expect(await statusOf(`${own}${name}`, BEARER)).toBe(404);
  });

  it('that is taken, or past the last one, is a sentence at the start', PATIENT, async () => {
    const port = await ownPort();
    await start({ METRICS_PORT: String(port) });
    const taken = await startBackend({ database, env: { METRICS_PORT: String(port) }, expectFailure: true });
    expect(await taken.exitCode()).toBe(1);
    expect(taken.output()).toMatch(new RegExp(`could not start: .*${port}`));
    const past = { METRICS_PORT: '65535', NODE_APP_INSTANCE: '1' };
    const beyond = await startBackend({ database, env: past, expectFailure: true });
    expect(await beyond.exitCode()).toBe(1);
    expect(beyond.output()).toContain('METRICS_PORT leaves no port');
  });

  it('is another one for each backend of a host: counters add up, and the fleet is the same', PATIENT, async () => {
    const port = await ownPort(2);
    const plane = await ControlPlane.start();
    const env = (instance: number) => ({
      METRICS_PORT: String(port),
      NODE_APP_INSTANCE: String(instance),
      HOUSEKEEPING_INTERVAL_MS: '200',
    });
    const pair = await Promise.all([0, 1].map((i) => startBackend({ database: plane.database, env: env(i) })));
    try {
      await plane.newServer('m1', 10_000, 10);
      const user = await plane.newUser();
      await user.post('/api/v1/tunnels', {});
      const asked = [7, 4];
      for (const [i, backend] of pair.entries())
        for (let n = 0; n < (asked[i] ?? 0); n++)
          expect((await user.at(backend.url).get('/api/v1/auth/me')).status).toBe(200);
      const both = () => Promise.all([0, 1].map((i) => scrape(`http://127.0.0.1:${port + i}`)));
      const requests = async () =>
        (await both()).map((at) => at.sum('http_requests_total', { route: '/api/v1/auth/me', status: '200' }));
      await until(async () => (await requests()).join() === asked.join(), 'each has counted its own');
      const tunnels = async () => (await both()).map((at) => at.value('bore_tunnels', { state: 'pending' }));
      await until(async () => (await tunnels()).join() === '1,1', 'both show the one tunnel', 20_000);
    } finally {
      for (const backend of pair) await backend.stop();
      await plane.stop();
    }
  });
});

describe('bore-servers are found', () => {
  let plane: ControlPlane;
  let server: BoreServerProcess;

  beforeAll(async () => {
    plane = await ControlPlane.start({ env: { METRICS_TOKEN: TOKEN } });
    const [backend] = plane.backends;
    if (!backend) throw new Error('no backend');
    server = await startBoreServer({
      backend,
      serverId: 'found',
      ports: { min: 10_000, max: 10_009 },
      address: '127.0.2.66',
      env: { BORE_LOCATION: 'here', BORE_METRICS_TOKEN: TOKEN },
    });
  }, PATIENT.timeout);

  afterAll(async () => {
    await server?.stop();
    await plane?.stop();
  });

  const groups = async () => (await new Api(plane.url(), BEARER).get('/metrics/bore-servers')).body;

  it('by their state; not those that never came, are disabled or deleted', PATIENT, async () => {
    await (await plane.newServer('tls', 11_000)).register({ adminUrl: 'https://bore.example.com/behind/a/path/' });
    await (await plane.newServer('six', 12_000)).register({ adminUrl: 'http://[fd00::1]:7836' });
    await (await plane.newServer('draining', 13_000)).beat({ draining: true });
    for (const id of ['lost', 'disabled', 'deleted']) await plane.newServer(id, 14_000);
    await plane.database.query(`UPDATE servers SET lease_until = now() - interval '1 h' WHERE id = 'lost'`);
    await plane.database.query(`UPDATE servers SET state = 'disabled' WHERE id = 'disabled'`);
    await plane.database.query(`UPDATE servers SET deleted_at = now() WHERE id = 'deleted'`);
    const admin = await plane.admin();
    const announced = { id: 'announced', host: 'h.example.com', location: 'x' };
    expect((await admin.post('/api/v1/admin/servers', announced)).status).toBe(201);
    const found = await groups();
    const states = found.map(({ labels }: { labels: Record<string, string> }) => [
      labels['__meta_bore_server_name'],
      labels['__meta_bore_server_state'],
    ]);
    expect(Object.fromEntries(states)).toEqual({
      found: 'online',
      tls: 'online',
      six: 'online',
      draining: 'draining',
      lost: 'offline',
    });
    const of = (name: string) =>
      found.find(({ labels }: { labels: Record<string, string> }) => labels['__meta_bore_server_name'] === name);
    expect(of('found')).toEqual({
      targets: [new URL(server.adminUrl).host],
      labels: {
        __meta_bore_server_name: 'found',
        __meta_bore_server_location: 'here',
        __meta_bore_server_state: 'online',
      },
    });
    expect(of('tls')).toMatchObject({
      targets: ['bore.example.com:443'],
      labels: { __scheme__: 'https', __metrics_path__: '/behind/a/path/metrics' },
    });
    expect(of('six').targets).toEqual(['[fd00::1]:7836']);
  });

  it('by a real Prometheus, which scrapes them and the backend with their tokens', PATIENT, async (context) => {
    if (!isPrometheusInstalled()) return context.skip('prometheus is not installed: apt-get install prometheus');
    const folder = await mkdtemp(path.join(inject('scratch'), 'prometheus-'));
    const port = await ownPort();
    // of discovery, Prometheus 2.42 leaves out the type that is not written
    const auth = { authorization: { type: 'Bearer', credentials: TOKEN } };
    const config = {
      global: { scrape_interval: '1s' },
      scrape_configs: [
        { job_name: 'bore-backend', ...auth, static_configs: [{ targets: [new URL(plane.url()).host] }] },
        {
          job_name: 'bore-server',
          ...auth,
          http_sd_configs: [{ url: `${plane.url()}/metrics/bore-servers`, refresh_interval: '1s', ...auth }],
          relabel_configs: [
            { source_labels: ['__meta_bore_server_name'], target_label: 'server' },
            { source_labels: ['__meta_bore_server_location'], target_label: 'location' },
          ],
        },
      ],
    };
    // JSON is YAML
    await writeFile(path.join(folder, 'prometheus.yml'), JSON.stringify(config), { mode: 0o600 });
    const prometheus = new RunningProcess(
      'prometheus',
      [
        `--config.file=${folder}/prometheus.yml`,
        `--storage.tsdb.path=${folder}/data`,
        `--web.listen-address=127.0.0.1:${port}`,
      ],
      { PATH: process.env['PATH'] },
    );
    try {
      const api = new Api(`http://127.0.0.1:${port}`);
      const ask = async (query: string): Promise<{ metric: Record<string, string>; value: [number, string] }[]> => {
        const { body } = await api
          .get(`/api/v1/query?query=${encodeURIComponent(query)}`)
          .catch(() => ({ body: null }));
        return body?.data?.result ?? [];
      };
      const up = await until(
        async () => {
          const found = await ask('up == 1');
          return found.length >= 2 ? found : undefined;
        },
        'both are scraped',
        60_000,
      );
      expect(up.map(({ metric }) => [metric['job'], metric['server'], metric['location']].join(' ')).sort()).toEqual([
        'bore-backend  ',
        'bore-server found here',
      ]);
      const [sessions] = await until(async () => {
        const found = await ask('bore_server_sessions_max{server="found"}');
        return found.length > 0 ? found : undefined;
      }, 'a figure of it is there');
      expect(sessions?.value[1]).toBe('10');
    } finally {
      await prometheus.kill9();
    }
  });
});
