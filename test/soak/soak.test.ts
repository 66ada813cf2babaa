/**
 * Soak: visitors come and go for a long time, and nothing is left of them. Twenty seconds in the test run;
 * `npm run soak -- --minutes 10` for longer.
 */
import { afterAll, beforeAll, expect, inject, it } from 'vitest';

import { Platform } from '../harness/platform.js';
import { RunningProcess } from '../harness/running-process.js';
import { until } from '../harness/until.js';
import { CarryingClient } from '../harness/wire-client.js';
import { load, Tally } from './load.js';
import { serve, SoakService } from './service.js';
import type { Door } from './visits.js';

const ADDRESS = '127.0.13.1';
const MIB = 1024 * 1024;
const { SOAK_MINUTES } = process.env;
const DURATION_MS = Number(SOAK_MINUTES ?? 1 / 3) * 60_000;
/** 100,000 and more in ten minutes, on a machine of its own; among other tests, what shows that it ran. */
const VISITS_PER_SECOND_MIN = SOAK_MINUTES === undefined ? 20 : 170;
/** Before the baseline is taken: what is allocated once, is. */
const WARM_UP_MS = Math.min(15_000, DURATION_MS / 4);
const FIGURES_EVERY_MS = 10_000;
const TUNNELS = 3;
/** Visitors come from so many addresses: the server limits each. */
const SOURCES = 40;
/** Connections of our own to its metrics, as fetch keeps them. */
const SPARE_DESCRIPTORS = 4;
/** The allocator keeps some of what it once needed. */
const GROWTH_BYTES_MAX = 48 * MIB;

const bore = inject('upstreamBore');

let platform: Platform;
const service = new SoakService();
const clients: RunningProcess[] = [];
const bareClients: CarryingClient[] = [];

beforeAll(async () => {
  platform = await Platform.start({ address: ADDRESS, controlPort: 7835, ports: { min: 10_000, max: 10_099 } });
});

afterAll(async () => {
  for (const client of clients) await client.kill9();
  for (const client of bareClients) client.stop();
  service.close();
  await platform?.stop();
});

it('visitors come and go, and nothing is left of them', { timeout: DURATION_MS + 180_000 }, async () => {
  const doors = await openDoors();
  await load(doors, WARM_UP_MS, new Tally()).catch(explain);
  await quiet();
  const baseline = await figures();
  show(0, new Tally(), baseline);

  const tally = new Tally();
  const began = performance.now();
  const line = setInterval(() => {
    void figures().then((now) => show(performance.now() - began, tally, now));
  }, FIGURES_EVERY_MS);
  await load(doors, DURATION_MS, tally)
    .catch(explain)
    .finally(() => clearInterval(line));

  await quiet();
  await until(
    async () => (await figures()).descriptors <= baseline.descriptors + SPARE_DESCRIPTORS,
    'descriptors are given back',
    30_000,
  );
  const grown = async () => (await figures()).residentBytes - baseline.residentBytes;
  await until(async () => (await grown()) < GROWTH_BYTES_MAX, 'memory is given back', 30_000);
  const end = await figures();
  show(performance.now() - began, tally, end);
  process.stdout.write(`soak: ${[...tally.visits].map(([kind, count]) => `${kind} ${count}`).join(', ')}\n`);
  expect(end.tunnels).toBe(baseline.tunnels);
  expect(platform.server.exited()).toBe(false);
  expect(tally.total).toBeGreaterThan((DURATION_MS / 1000) * VISITS_PER_SECOND_MIN);
});

/** Tunnels, one of them with a client that is nothing but the wire, and all the ways to their doors. */
async function openDoors(): Promise<Door[]> {
  const user = await platform.newUser();
  const localPort = await service.listen();
  const ports: number[] = [];
  for (let i = 0; i < TUNNELS; i++) {
    const tunnel = await platform.open(user, { localPort });
    ports.push(tunnel.port);
    if (i === 0 || 'missing' in bore) {
      bareClients.push(await CarryingClient.start(platform.server, tunnel.token, tunnel.port, serve));
      continue;
    }
    const [, ...args] = tunnel.command.split(' ');
    const client = new RunningProcess(bore.path, args, { PATH: process.env['PATH'], RUST_LOG: 'error' });
    clients.push(client);
    // active says that the client was let in; its port opens a moment later
    await platform.server.waitFor(new RegExp(`"tunnelId":"${tunnel.id}".*"msg":"session began"`));
  }
  return Array.from({ length: SOURCES }, (_, i) => ({
    host: ADDRESS,
    port: ports[i % TUNNELS] ?? 0,
    from: `127.0.14.${i + 1}`,
  }));
}

/** What the programs said, for whoever has to find out why a visit failed. */
function explain(cause: unknown): never {
  const said = [platform.server, ...clients].map((program) => program.output().slice(-2_000)).join('\n---\n');
  throw new Error(`the soak failed; the programs said:\n${said}`, { cause });
}

interface Figures {
  readonly descriptors: number;
  readonly residentBytes: number;
  readonly connections: number;
  readonly tunnels: number;
}

async function figures(): Promise<Figures> {
  const [descriptors, residentBytes, connections, tunnels] = await Promise.all(
    ['process_open_fds', 'process_resident_memory_bytes', 'bore_server_connections', 'bore_server_sessions'].map(
      (name) => platform.metric(name),
    ),
  );
  if (descriptors === undefined || residentBytes === undefined || connections === undefined || tunnels === undefined)
    throw new Error('a figure is missing');
  return { descriptors, residentBytes, connections, tunnels };
}

/** Resolves when nobody is carried any more, on either side. */
async function quiet(): Promise<void> {
  await until(async () => (await figures()).connections === 0, 'no visitor is left', 90_000);
  await until(async () => (await service.connections()) === 0, 'the service is left alone', 90_000);
}

function show(ms: number, tally: Tally, { descriptors, residentBytes, connections, tunnels }: Figures): void {
  const seconds = Math.max(1, ms / 1000);
  process.stdout.write(
    `soak: ${(ms / 1000).toFixed(0).padStart(4)} s  ${tally.total} visits (${(tally.total / seconds).toFixed(0)}/s)  ` +
      `${(tally.bytes / MIB / 1024).toFixed(2)} GiB (${(tally.bytes / MIB / seconds).toFixed(0)} MiB/s)  ` +
      `bore-server: ${connections} visitors, ${tunnels} tunnels, ${descriptors} descriptors, ` +
      `${(residentBytes / MIB).toFixed(0)} MiB\n`,
  );
}
