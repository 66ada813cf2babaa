/**
 * `npm run chaos`: the cluster of `npm run cluster` under a steady load; its parts are killed and held one at a time and in
 * pairs, and after each the guarantees are looked at from the outside. CI runs the short form.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';

import { clusterUnavailable } from '../harness/own-cluster.js';
import { ChaosBed, START_MS } from './chaos-bed.js';
import { ChaosRun } from './chaos-run.js';
import { FAULT_MS, FAULTS } from './faults.js';

const isLong = process.env['CHAOS'] === 'long';

const bore = inject('upstreamBore');
const missing = await clusterUnavailable();

let bed: ChaosBed;
let run: ChaosRun;

beforeAll(async () => {
  if (missing !== undefined) return;
  bed = await ChaosBed.start('127.42.0.1', { stock: 'path' in bore ? bore.path : undefined });
  run = new ChaosRun(bed);
}, START_MS);

beforeEach(({ skip }) => {
  if (missing !== undefined) skip(missing);
});

afterAll(async () => {
  await bed?.stop();
  await run?.report(isLong ? 'chaos.md' : undefined);
}, START_MS);

describe('under a steady load, with checked streams, requests and events', () => {
  const faults = FAULTS.filter(({ short }) => isLong || short);
  const [harmless, harmful] = [true, false].map((whole) =>
    faults.filter(({ allowed }) => (allowed.streams === 'all whole') === whole),
  );

  it.for(harmless ?? [])('$name', { timeout: FAULT_MS }, (fault, context) => run.withstand(fault, context));

  it('what the sockets have carried is what the ledger says, to the byte (G4)', { timeout: FAULT_MS }, async () => {
    const compared = await bed.compareBytes();
    expect(compared).toHaveLength(bed.tunnels.length);
    process.stdout.write(`bytes each way, as in the ledger: ${compared.join(', ')}\n`);
  });

  it.for(harmful ?? [])('$name', { timeout: FAULT_MS }, (fault, context) => run.withstand(fault, context));
});
