import { readFileSync } from 'node:fs';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { buildVersion } from '../../src/protocol/build-version.js';
import { Api } from '../harness/api.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { startBoreServer } from '../harness/bore-server.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { Collector } from './collector.js';

let database: TestDatabase;

beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database.drop());

/** What a backend with these variables sends of one request, until it has stopped. */
async function traced(env: (collector: Collector) => NodeJS.ProcessEnv): Promise<Collector> {
  const collector = await Collector.start();
  const backend = await startBackend({ database, env: env(collector) });
  await new Api(backend.url).get('/api/v1/auth/me');
  await backend.stop();
  collector.stop();
  return collector;
}

// programs are started and stopped
describe('the variables of OpenTelemetry', () => {
  test('an endpoint is enough: OTLP as protobuf, and a stop sends what is waiting', async () => {
    // the first batch would be sent after 5 s
    const { contentTypes, bodies } = await traced(({ url }) => ({ OTEL_EXPORTER_OTLP_ENDPOINT: url }));
    expect([...contentTypes]).toEqual(['application/x-protobuf']);
    expect(bodies.join('')).toContain('GET /api/v1/auth/me');
    expect(bodies.join('')).toContain('bore-backend');
  });

  test('names, attributes and headers are those of the variables', async () => {
    const collector = await traced(({ env }) => ({
      ...env,
      OTEL_SERVICE_NAME: 'our-api',
      OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment.name=staging',
      OTEL_EXPORTER_OTLP_HEADERS: 'x-tenant=ours',
    }));
    expect(collector.resources[0]).toMatchObject({
      'service.name': 'our-api',
      'deployment.environment.name': 'staging',
      'service.version': buildVersion(),
      'service.instance.id': expect.stringMatching(/^[0-9a-f-]{36}$/),
    });
    expect(collector.headers[0]).toMatchObject({ 'x-tenant': 'ours' });
  });

  test('a sampler that takes none sends none', async () => {
    const { bodies } = await traced(({ env }) => ({
      ...env,
      OTEL_TRACES_SAMPLER: 'traceidratio',
      OTEL_TRACES_SAMPLER_ARG: '0',
    }));
    expect(bodies).toEqual([]);
  });

  test.each([{ OTEL_SDK_DISABLED: 'true' }, { OTEL_TRACES_EXPORTER: 'none' }])('%o: nothing is sent', async (off) => {
    const { bodies } = await traced(({ env }) => ({ ...env, ...off }));
    expect(bodies).toEqual([]);
  });

  test.each([
    [{ OTEL_TRACES_EXPORTER: 'jaeger' }, 'OTEL_TRACES_EXPORTER must be otlp or none'],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4318' }, 'OTEL_EXPORTER_OTLP_ENDPOINT must be a URL'],
    [
      { OTEL_TRACES_EXPORTER: 'otlp', OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' },
      'OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf or',
    ],
    [{ OTEL_TRACES_EXPORTER: 'otlp', OTEL_TRACES_SAMPLER: 'some' }, 'OTEL_TRACES_SAMPLER is no sampler'],
    [{ OTEL_TRACES_EXPORTER: 'otlp', OTEL_TRACES_SAMPLER_ARG: '2' }, 'OTEL_TRACES_SAMPLER_ARG must be'],
  ])('%o is refused at the start, in a sentence', async (env, sentence) => {
    const backend: Backend = await startBackend({ database, env, expectFailure: true });
    expect(await backend.exitCode()).toBe(1);
    expect(backend.output()).toContain(`bore-backend could not start: ${sentence}`);
    const starting = startBoreServer({
      secret: 'stand-alone',
      ports: { min: 20_100, max: 20_101 },
      address: '127.0.81.2',
      env,
    });
    await expect(starting).rejects.toThrow(`bore-server could not start: ${sentence}`);
  });

  test('are in the documentation, all that are checked', () => {
    const read = (file: string) => readFileSync(new URL(`../../${file}`, import.meta.url), 'utf8');
    const checked = [...read('src/tracing/tracing-settings.ts').matchAll(/^ {2}(OTEL_\w+):/gm)].map(([, name]) => name);
    const documented = [...read('docs/tracing.md').matchAll(/^\| (`OTEL_.*?) \|/gm)].flatMap(([, cell = '']) =>
      [...cell.matchAll(/`(OTEL_\w+)`/g)].map(([, name]) => name),
    );
    expect(checked.length).toBeGreaterThan(5);
    expect(new Set(documented)).toEqual(new Set(checked));
  });
});
