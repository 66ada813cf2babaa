/**
 * `npm run chaos`: the cluster of `npm run cluster` under a steady load; its parts are killed and held one at a time and in
 * pairs, and after each the guarantees are looked at from the outside. CI runs the short form.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, inject, it, type TestContext } from 'vitest';

import { PROJECT_DIR } from '../../src/local/state-folders.js';
import { nginxUnavailable } from '../harness/nginx.js';
import { redisMissing } from '../harness/own-redis.js';
import { ChaosBed, PLAN_TUNNELS } from './chaos-bed.js';
import { type Fault, FAULTS, HOLD_MS } from './faults.js';
import { doubledPorts, eventFaults, oversold } from './invariants.js';
import { markdownTable } from './report.js';

const isLong = process.env['CHAOS'] === 'long';
/** Injection, repair and the way back to health. */
const FAULT_MS = 240_000;
const START_MS = 240_000;

const bore = inject('upstreamBore');
const missing = redisMissing() ?? (await nginxUnavailable());

let bed: ChaosBed;
const rows: string[][] = [];

beforeAll(async () => {
  if (missing !== undefined) return;
  bed = await ChaosBed.start('127.42.0.1', 'path' in bore ? bore.path : undefined);
  await bed.healthy();
}, START_MS);

beforeEach(({ skip }) => {
  if (missing !== undefined) skip(missing);
});

afterAll(async () => {
  await bed?.stop();
  if (rows.length > 0) await report();
}, START_MS);

describe('under a steady load, with checked streams, requests and events', () => {
  const faults = FAULTS.filter(({ short }) => isLong || short);
  const [harmless, harmful] = [true, false].map((whole) =>
    faults.filter(({ allowed }) => (allowed.streams === 'all whole') === whole),
  );

  it.for(harmless ?? [])('$name', { timeout: FAULT_MS }, withstand);

  it('what the sockets have carried is what the ledger says, to the byte (G4)', { timeout: FAULT_MS }, async () => {
    const compared = await bed.compareBytes();
    expect(compared).toHaveLength(bed.tunnels.length);
    process.stdout.write(`bytes each way, as in the ledger: ${compared.join(', ')}\n`);
  });

  it.for(harmful ?? [])('$name', { timeout: FAULT_MS }, withstand);
});

async function withstand(fault: Fault, { skip }: TestContext): Promise<void> {
  const reason = fault.missing?.(bed);
  if (reason !== undefined) skip(reason);
  const row = await during(fault);
  const { allowed } = fault;
  expect(row.oversold, 'oversold (G1)').toBe(0);
  expect(row.doubledPorts, 'ports given twice (G1)').toBe(0);
  expect(row.events, 'events').toEqual({ lost: 0, doubled: 0, foreign: 0 });
  expect(row.wrongBytes, 'wrong bytes (G5)').toBe(0);
  if (allowed.streams === 'all whole') expect(row.broken, 'broken streams (G2)').toBe(0);
  const reasons = row.load.reasons.join('\n');
  if (allowed.reads === 'all answered') expect(row.load.failedReads, reasons).toBe(0);
  const outage = Math.max(row.load.readOutageMs, row.load.writeOutageMs);
  expect(outage, reasons).toBeLessThanOrEqual(allowed.outageMs);
}

/** Breaks, waits, mends, and looks. */
async function during(fault: Fault) {
  bed.load.take();
  for (const visitor of bed.visitors) visitor.take();
  for (const listener of bed.listeners) listener.takeOutage();
  await fault.inject(bed);
  await new Promise((resolve) => setTimeout(resolve, fault.holdMs ?? HOLD_MS));
  await fault.repair(bed);
  const healthMs = await bed.healthy();
  const last = await bed.told();
  const load = bed.load.take();
  const streams = bed.visitors.map((visitor) => visitor.take());
  const events = await Promise.all(
    bed.listeners.map(({ received }) => eventFaults(bed.query, bed.userId, received, last)),
  );
  const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);
  const row = {
    load,
    healthMs,
    broken: sum(streams.map(({ broken }) => broken)),
    wrongBytes: sum(streams.map(({ wrong }) => wrong)),
    streamOutageMs: Math.max(...streams.map(({ outageMs }) => outageMs)),
    eventOutageMs: Math.max(...bed.listeners.map((listener) => listener.takeOutage())),
    events: {
      lost: sum(events.map(({ lost }) => lost)),
      doubled: sum(events.map(({ doubled }) => doubled)),
      foreign: sum(events.map(({ foreign }) => foreign)),
    },
    oversold: await oversold(bed.query, PLAN_TUNNELS),
    doubledPorts: (await doubledPorts(bed.query)) + load.doubledPorts,
  };
  for (const reason of new Set(load.reasons)) process.stdout.write(`${fault.name}: ${reason}\n`);
  const seconds = (ms: number) => (ms / 1000).toFixed(1);
  rows.push([
    fault.name,
    `${load.failedReads} of ${load.reads}`,
    `${load.failedWrites} of ${load.writes}`,
    seconds(Math.max(load.readOutageMs, load.writeOutageMs)),
    seconds(load.slowestMs),
    String(row.broken),
    seconds(row.streamOutageMs),
    `${row.events.lost} / ${row.events.doubled}`,
    seconds(row.eventOutageMs),
    String(row.oversold),
    String(row.doubledPorts),
    String(row.wrongBytes),
    seconds(healthMs),
  ]);
  return row;
}

async function report(): Promise<void> {
  const table = markdownTable(
    [
      'fault',
      'reads failed',
      'writes failed',
      'longest outage, s',
      'slowest answer, s',
      'streams broken',
      'longest without a stream, s',
      'events lost / doubled',
      'longest without events, s',
      'oversold',
      'ports twice',
      'wrong bytes',
      'healthy after, s',
    ],
    rows,
  );
  process.stdout.write(`\n${table}\n`);
  if (!isLong) return;
  const folder = path.join(PROJECT_DIR, '.data');
  await mkdir(folder, { recursive: true });
  await writeFile(path.join(folder, 'chaos.md'), table);
}
