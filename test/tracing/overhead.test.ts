import { cp, mkdir, mkdtemp, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';

import { inSpan, inStep, isTracing, SpanKind, traceHeaders } from '../../src/tracing/spans.js';
import { Api } from '../harness/api.js';
import { expectAtBest } from '../harness/at-best.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { Collector, startSilentCollector } from './collector.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Rounds of every build in turn, so that what else the machine does meets all alike; the first warms them up. */
const ROUNDS = 7;
const REQUESTS = 100;
const AT_ONCE = 4;

/**
 * A process with tracing off may use so much more than one with the seams taken out, besides what two processes of the very same build
 * differ by (`bypassed again`). It is what would fail if off did the work of on, some 30 %; how little off really costs, the seams
 * alone show.
 */
const OFF_CPU_MAX = 1.2;
/** Of one seam. A request passes some ten, and the cheapest takes more than a millisecond: all of them are below 1 % of it. */
const SEAM_NS_MAX = 1_000;
const SEAM_CALLS = 200_000;
/** Whoever waited for a collector that never answers would be at 0. */
const SILENT_PACE_MIN = 0.2;

/** What is called of `spans.js`, with nothing in it. */
const BYPASS = `
export const SpanKind = { INTERNAL: 0, SERVER: 1, CLIENT: 2, PRODUCER: 3, CONSUMER: 4 };
export const traceWith = () => undefined;
export const isTracing = () => false;
export const inSpan = (description, work) => work(undefined);
export const inStep = (describe, work) => work();
export const beginStep = () => undefined;
export const beginRequest = () => undefined;
export const within = (span, work) => work();
export const ending = (span, work) => work();
export const fail = () => undefined;
export const traceHeaders = () => ({});
export const contextOf = () => undefined;
export const idsOfSpan = () => ({});
`;

interface Build {
  readonly name: string;
  readonly backend: Backend;
  readonly api: Api;
  readonly cpuMs: number[];
  readonly perSecond: number[];
}

/** A copy of the compiled programs without what tracing needs. Returns its `main.js`. */
async function bypassedBuild(): Promise<string> {
  const folder = await mkdtemp(path.join(inject('scratch'), 'bypassed-'));
  await cp(path.join(ROOT, 'dist'), path.join(folder, 'dist'), { recursive: true });
  await cp(path.join(ROOT, 'package.json'), path.join(folder, 'package.json'));
  for (const name of ['node_modules', 'prisma']) await symlink(path.join(ROOT, name), path.join(folder, name));
  await mkdir(path.join(folder, 'dist/tracing'), { recursive: true });
  await writeFile(path.join(folder, 'dist/tracing/spans.js'), BYPASS);
  return path.join(folder, 'dist/main.js');
}

async function cpuSeconds(api: Api): Promise<number> {
  const { text } = await api.get('/metrics');
  return Number(/^process_cpu_seconds_total ([\d.e-]+)/m.exec(text)?.[1]);
}

async function round(build: Build): Promise<void> {
  const cpu = await cpuSeconds(build.api);
  const begun = performance.now();
  let left = REQUESTS;
  const one = async (): Promise<void> => {
    while (left-- > 0) expect((await build.api.get('/api/v1/auth/me')).status).toBe(200);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
  build.perSecond.push((REQUESTS * 1000) / (performance.now() - begun));
  build.cpuMs.push(((await cpuSeconds(build.api)) - cpu) * (1000 / REQUESTS));
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

/** Nanoseconds of a call, at best of several runs: whatever else the machine does only adds to it. */
async function nsOf(call: () => Promise<unknown>): Promise<number> {
  let best = Infinity;
  for (let run = 0; run < 5; run++) {
    const begun = performance.now();
    for (let i = 0; i < SEAM_CALLS; i++) await call();
    best = Math.min(best, ((performance.now() - begun) * 1e6) / SEAM_CALLS);
  }
  return best;
}

describe('what tracing costs', () => {
  let database: TestDatabase;
  let collector: Collector;
  let silent: Awaited<ReturnType<typeof startSilentCollector>>;
  const builds: Build[] = [];

  beforeAll(async () => {
    database = await createDatabase();
    collector = await Collector.start();
    silent = await startSilentCollector();
    const main = await bypassedBuild();
    // jobs would come in between
    const env = { HOUSEKEEPING_INTERVAL_MS: '60000' };
    const tenth = { OTEL_TRACES_SAMPLER: 'parentbased_traceidratio', OTEL_TRACES_SAMPLER_ARG: '0.1' };
    const wanted: [name: string, options: { main?: string; env?: NodeJS.ProcessEnv }][] = [
      ['bypassed', { main }],
      ['off', {}],
      ['bypassed again', { main }],
      ['on', { env: { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url } }],
      ['a tenth', { env: { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, ...tenth } }],
      ['silent', { env: { OTEL_EXPORTER_OTLP_ENDPOINT: silent.url } }],
    ];
    for (const [name, options] of wanted) {
      const backend = await startBackend({ database, ...options, env: { ...env, ...options.env } });
      const api = new Api(backend.url);
      const email = `${name.replaceAll(' ', '-')}@example.com`;
      const { body } = await api.post('/api/v1/auth/signup', { email, password: 'correct horse battery' });
      builds.push({ name, backend, api: api.withToken(body.accessToken), cpuMs: [], perSecond: [] });
    }
  }, 240_000);
  afterAll(async () => {
    for (const { backend } of builds) await backend.stop();
    await database?.drop();
    collector?.stop();
    silent?.stop();
  });

  test('nothing while it is off; while it is on, what is printed here', async () => {
    for (const build of builds) await round(build);
    const [bypassed] = builds;
    /** At best, of rounds made in turn: whatever else the machine does only adds to it. */
    const leastCpu = (build: Build | undefined) => Math.min(...(build?.cpuMs ?? []));
    /** Of rounds that were made next to each other: what else the machine did was about the same. */
    const ratioTo = (to: Build | undefined, figures: (build: Build) => readonly number[], build: Build | undefined) =>
      build && to ? median(figures(build).map((figure, i) => figure / (figures(to)[i] ?? Number.NaN))) : Number.NaN;
    const named = (name: string) => builds.find((build) => build.name === name);
    await expectAtBest(OFF_CPU_MAX, async () => {
      for (const { cpuMs, perSecond } of builds) cpuMs.length = perSecond.length = 0;
      for (let i = 1; i < ROUNDS; i++) {
        // each begins a round in turn
        for (let k = 0; k < builds.length; k++) {
          const build = builds[(i + k) % builds.length];
          if (build) await round(build);
        }
      }
      const noise = Math.abs(leastCpu(named('bypassed again')) / leastCpu(bypassed) - 1);
      return leastCpu(named('off')) / leastCpu(bypassed) - noise;
    });
    for (const build of builds) {
      const figures = `${leastCpu(build).toFixed(2)} ms CPU a request, ${median(build.perSecond).toFixed(0)} requests/s`;
      process.stdout.write(
        `${build.name}: ${figures}; CPU ${(leastCpu(build) / leastCpu(bypassed)).toFixed(3)} of bypassed\n`,
      );
    }
    expect(ratioTo(named('on'), ({ perSecond }) => perSecond, named('silent'))).toBeGreaterThan(SILENT_PACE_MIN);
  }, 300_000);

  test('a seam that is off takes nanoseconds', async () => {
    expect(isTracing()).toBe(false);
    const work = async (): Promise<number> => 1;
    const describeIt = () => ({ name: 'SELECT tunnels', kind: SpanKind.CLIENT, attributes: {} });
    const bare = await nsOf(work);
    const seams = {
      inSpan: await nsOf(() => inSpan(describeIt(), work)),
      inStep: await nsOf(() => inStep(describeIt, work)),
      traceHeaders: await nsOf(async () => traceHeaders()),
    };
    for (const [name, ns] of Object.entries(seams)) {
      process.stdout.write(`${name}: ${(ns - bare).toFixed(0)} ns more than the work alone (${bare.toFixed(0)} ns)\n`);
      expect(ns - bare, name).toBeLessThan(SEAM_NS_MAX);
    }
  });
});
