import { setTimeout } from 'node:timers/promises';

import { type Door, type Kind, visit } from './visits.js';

const KIB = 1024;
const MIB = 1024 * KIB;

/** Visits a second, bulk aside: twice what 100,000 in ten minutes need. With more, ports in TIME_WAIT would run out. */
const VISITS_PER_SECOND = 340;
/** Visitors at once. */
const WORKERS = 48;
const BULK_WORKERS = 2;
const BULK_BYTES = 16 * MIB;
/** Both ways: 30 GiB in ten minutes, and half of two cores for everybody else. */
const BULK_BYTES_PER_SECOND = 52 * MIB;

/** How often each kind comes, of 100. */
const MIX: readonly (readonly [share: number, kind: Kind, bytes: number])[] = [
  [70, 'exchange', 4 * KIB],
  [5, 'exchange', 256 * KIB],
  [2, 'slow reader', 2 * MIB],
  [10, 'visitor resets', 64 * KIB],
  [8, 'visitor closes early', 64 * KIB],
  [5, 'service resets', 16 * KIB],
];

/** What a load has done so far. */
export class Tally {
  readonly visits = new Map<Kind, number>();
  bytes = 0;

  get total(): number {
    return [...this.visits.values()].reduce((sum, count) => sum + count, 0);
  }
}

/** Visits the doors, through all kinds, for so long. Fails with the first visit that fails. */
export async function load(doors: readonly Door[], forMs: number, tally: Tally): Promise<void> {
  const began = performance.now();
  const isOver = (): boolean => performance.now() - began > forMs;
  let begun = 0;
  let turn = 0;
  let failed: unknown;
  const work = async (kind: Kind, bytes: number): Promise<void> => {
    const door = doors[turn++ % doors.length];
    if (!door) throw new Error('there is no door');
    const { bytes: checked } = await visit(kind, door, bytes);
    tally.visits.set(kind, (tally.visits.get(kind) ?? 0) + 1);
    tally.bytes += checked;
  };
  const worker = async (next: () => Promise<void>): Promise<void> => {
    try {
      while (!isOver() && failed === undefined) await next();
    } catch (error) {
      failed ??= error;
    }
  };
  const paced = async (): Promise<void> => {
    const [kind, bytes] = kindOf(begun++);
    const dueMs = (begun / VISITS_PER_SECOND) * 1000 - (performance.now() - began);
    if (dueMs > 0) await setTimeout(dueMs);
    await work(kind, bytes);
  };
  let bulks = 0;
  const bulk = async (): Promise<void> => {
    const dueMs = ((2 * BULK_BYTES * bulks++) / BULK_BYTES_PER_SECOND) * 1000 - (performance.now() - began);
    if (dueMs > 0) await setTimeout(dueMs);
    await work('bulk', BULK_BYTES);
  };
  await Promise.all([
    ...Array.from({ length: WORKERS }, () => worker(paced)),
    ...Array.from({ length: BULK_WORKERS }, () => worker(bulk)),
  ]);
  if (failed !== undefined) throw new Error('a visit failed', { cause: failed });
}

/** Every hundred visits have each kind in its share, well mixed (37 and 100 have no common divisor). */
function kindOf(visitNumber: number): readonly [Kind, number] {
  let place = (visitNumber * 37) % 100;
  for (const [share, kind, bytes] of MIX) {
    if (place < share) return [kind, bytes];
    place -= share;
  }
  throw new Error('the shares are not 100');
}
