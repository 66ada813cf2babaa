import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { expect, type TestContext } from 'vitest';

import { PROJECT_DIR } from '../../src/local/state-folders.js';
import type { LoadReport } from './api-load.js';
import { type ChaosBed, PLAN_TUNNELS } from './chaos-bed.js';
import { type Fault, HOLD_MS } from './faults.js';
import { doubledPorts, eventFaults, oversold } from './invariants.js';

const COLUMNS = [
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
];

/** What one fault has done. */
interface Outcome {
  readonly load: LoadReport;
  readonly broken: number;
  readonly wrongBytes: number;
  readonly streamOutageMs: number;
  readonly eventOutageMs: number;
  readonly events: { readonly lost: number; readonly doubled: number; readonly foreign: number };
  readonly oversold: number;
  readonly doubledPorts: number;
  /** From the moment at which what was broken ran again. */
  readonly healthMs: number;
}

/** Faults, one after the other, and what they did. */
export class ChaosRun {
  private readonly rows: string[][] = [];

  constructor(private readonly bed: ChaosBed) {}

  /** Fails when a fault has done more than it may. */
  async withstand(fault: Fault, { skip }: TestContext): Promise<void> {
    const reason = fault.missing?.(this.bed);
    if (reason !== undefined) skip(reason);
    const outcome = await this.during(fault);
    this.rows.push(rowOf(fault, outcome));
    const { load } = outcome;
    for (const each of new Set(load.reasons)) process.stdout.write(`${fault.name}: ${each}\n`);
    const { allowed } = fault;
    expect(outcome.oversold, 'oversold (G1)').toBe(0);
    expect(outcome.doubledPorts, 'ports given twice (G1)').toBe(0);
    expect(outcome.events, 'events').toEqual({ lost: 0, doubled: 0, foreign: 0 });
    expect(outcome.wrongBytes, 'wrong bytes (G5)').toBe(0);
    if (allowed.streams === 'all whole') expect(outcome.broken, 'broken streams (G2)').toBe(0);
    const reasons = load.reasons.join('\n');
    if (allowed.reads === 'all answered') expect(load.failedReads, reasons).toBe(0);
    expect(Math.max(load.readOutageMs, load.writeOutageMs), reasons).toBeLessThanOrEqual(allowed.outageMs);
  }

  /** Prints what was done as a table. @param name of the file below `.data` that also gets it */
  async report(name?: string): Promise<void> {
    if (this.rows.length === 0) return;
    const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |\n`;
    const table = [line(COLUMNS), line(COLUMNS.map(() => '---')), ...this.rows.map(line)].join('');
    process.stdout.write(`\n${table}`);
    if (name === undefined) return;
    const folder = path.join(PROJECT_DIR, '.data');
    await mkdir(folder, { recursive: true });
    await writeFile(path.join(folder, name), table);
  }

  /** Breaks, waits, mends, and looks. */
  private async during(fault: Fault): Promise<Outcome> {
    const { bed } = this;
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
    return {
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
  }
}

/** As {@link COLUMNS}. */
function rowOf({ name }: Fault, { load, events, ...outcome }: Outcome): string[] {
  const seconds = (ms: number) => (ms / 1000).toFixed(1);
  return [
    name,
    `${load.failedReads} of ${load.reads}`,
    `${load.failedWrites} of ${load.writes}`,
    seconds(Math.max(load.readOutageMs, load.writeOutageMs)),
    seconds(load.slowestMs),
    String(outcome.broken),
    seconds(outcome.streamOutageMs),
    `${events.lost} / ${events.doubled}`,
    seconds(outcome.eventOutageMs),
    String(outcome.oversold),
    String(outcome.doubledPorts),
    String(outcome.wrongBytes),
    seconds(outcome.healthMs),
  ];
}

const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);
