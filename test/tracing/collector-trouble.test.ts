import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { Api } from '../harness/api.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { startBoreServer } from '../harness/bore-server.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { until } from '../harness/until.js';
import { Collector, startSilentCollector } from './collector.js';

const PASSWORD = 'correct horse battery';
/** Spans that may wait, and one batch that is on its way (docs/tracing.md). */
const WAITING_MAX = 2_048;
const BATCH = 512;
/** How long a process is told to wait for its collector: whoever waited for that would be much later than any bound here. */
const PATIENT = { OTEL_EXPORTER_OTLP_TIMEOUT: '60000', OTEL_BSP_EXPORT_TIMEOUT: '60000' };
/** A third of it; requests take milliseconds on a machine that is not busy. What a stop may take, `stop()` itself limits to 15 s. */
const REQUEST_MS_MAX = 20_000;

let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database.drop());

async function loggedIn(backend: Backend): Promise<Api> {
  const api = new Api(backend.url);
  const email = `u${process.hrtime.bigint()}@example.com`;
  const { body } = await api.post('/api/v1/auth/signup', { email, password: PASSWORD });
  return api.withToken(body.accessToken);
}

/** Makes requests, some at a time, and returns how long the slowest took, in milliseconds. */
async function ask(api: Api, count: number, path = '/api/v1/tunnels', status = 200): Promise<number> {
  let slowest = 0;
  let left = count;
  const one = async (): Promise<void> => {
    while (left-- > 0) {
      const begun = performance.now();
      expect((await api.get(path)).status).toBe(status);
      slowest = Math.max(slowest, performance.now() - begun);
    }
  };
  await Promise.all(Array.from({ length: 8 }, one));
  return slowest;
}

// programs are started and stopped, and hundreds of requests made
describe('a collector', { timeout: 120_000 }, () => {
  test('that never answers holds up no request and no stop', async () => {
    const silent = await startSilentCollector();
    const env = { ...PATIENT, OTEL_EXPORTER_OTLP_ENDPOINT: silent.url, OTEL_BSP_SCHEDULE_DELAY: '20' };
    const backend = await startBackend({ database, env });
    const api = await loggedIn(backend);
    const slowest = await ask(api, 150);
    await until(() => silent.connections() > 0, 'a batch is on its way');
    const begun = performance.now();
    await backend.stop();
    const stopMs = performance.now() - begun;
    process.stdout.write(
      `silent collector: slowest of 150 requests ${Math.round(slowest)} ms, stop ${Math.round(stopMs)} ms\n`,
    );
    expect(slowest).toBeLessThan(REQUEST_MS_MAX);
    silent.stop();
  });

  test('that is not there: the same, and one line of the log says so', async () => {
    const free = net.createServer().listen(0, '127.0.0.1');
    await once(free, 'listening');
    const address = free.address();
    const port = typeof address === 'object' ? address?.port : 0;
    await new Promise((resolve) => free.close(resolve));
    const env = {
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
      OTEL_EXPORTER_OTLP_TIMEOUT: '300',
      OTEL_BSP_SCHEDULE_DELAY: '20',
    };
    const backend = await startBackend({ database, env });
    const api = await loggedIn(backend);
    expect(await ask(api, 80)).toBeLessThan(REQUEST_MS_MAX);
    await backend.waitFor('traces could not be sent');
    await ask(api, 80);
    await backend.stop();
    expect(backend.output().match(/traces could not be sent/g)).toHaveLength(1);
  });

  test('that answers with an error page: the same, and the page is not in the log', async () => {
    const server = http.createServer((request, response) => {
      request.resume().on('end', () => response.writeHead(403).end('their page '.repeat(1000)));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    const url = `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`;
    const backend = await startBackend({
      database,
      env: { OTEL_EXPORTER_OTLP_ENDPOINT: url, OTEL_BSP_SCHEDULE_DELAY: '20' },
    });
    await ask(await loggedIn(backend), 20);
    await backend.waitFor('traces could not be sent');
    await backend.stop();
    server.close();
    expect(backend.output()).not.toContain('their page their page');
  });

  test('that is slow: what waits is bounded, and the rest is dropped', async () => {
    let open: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => (open = resolve));
    const collector = await Collector.start(gate);
    const env = { ...collector.env, ...PATIENT };
    const backend = await startBackend({ database, env });
    await until(() => collector.spans.length > 0, 'a batch is held');
    const held = collector.spans.length;
    // of one span each
    await ask(new Api(backend.url), 3_000, '/no/such/place', 404);
    open();
    await until(() => collector.spans.length >= held + WAITING_MAX, 'what has waited arrives');
    await backend.stop();
    process.stdout.write(`held collector: ${collector.spans.length} spans arrived of more than 3000\n`);
    // the jobs of the last moments come to it
    expect(collector.spans.length).toBeLessThan(held + WAITING_MAX + BATCH);
    collector.stop();
  });

  test('that never answers holds up no bore-server either', async () => {
    const silent = await startSilentCollector();
    const env = { ...PATIENT, OTEL_EXPORTER_OTLP_ENDPOINT: silent.url, OTEL_BSP_SCHEDULE_DELAY: '20' };
    const backend = await startBackend({ database, env: { HEARTBEAT_INTERVAL_MS: '100' } });
    const ports = { min: 20_300, max: 20_301 };
    const server = await startBoreServer({ backend, ports, address: '127.0.81.5', env });
    await until(() => silent.connections() > 0, 'a batch is on its way');
    await server.stop();
    await backend.stop();
    silent.stop();
  });
});
