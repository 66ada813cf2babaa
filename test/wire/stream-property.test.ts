/** Streams under random conversations: whatever both ends do, bytes arrive whole and in order, and so do both ends. */
import { setTimeout } from 'node:timers/promises';

import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { type BoreServerProcess, startBoreServer } from '../harness/bore-server.js';
import { SECRET, StreamPath } from './conformance/paths.js';
import { PATIENCE_MS } from './conformance/rows.js';
import { Witness } from './conformance/witness.js';

const ADDRESS = '127.0.11.5';

let server: BoreServerProcess;
let path: StreamPath;

beforeAll(async () => {
  server = await startBoreServer({ secret: SECRET, ports: { min: 10_000, max: 10_099 }, address: ADDRESS });
  path = await StreamPath.start('bare', server, ADDRESS, 10_000);
});

afterAll(async () => {
  await path?.stop();
  await server?.stop();
});

/** What one end does next: a pause is part of what it does, not a wait for anything. */
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant<'send'>('send'), n: fc.integer({ min: 1, max: 300_000 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant<'rest'>('rest'), n: fc.integer({ min: 0, max: 15 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom<('stop reading' | 'read')[]>('stop reading', 'read') }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

async function follow(steps: readonly Step[], end: Witness): Promise<void> {
  for (const next of steps) {
    if (next.kind === 'send') end.send(next.n);
    else if (next.kind === 'rest') await setTimeout(next.n);
    else if (next.kind === 'read') end.read();
    else end.stopReading();
  }
  // from here on it reads, or the other could not come to its end
  end.read();
  await end.halfClose();
  await end.ends(PATIENCE_MS);
}

it('whatever both ends send, when they rest, do not read or finish', { timeout: 120_000 }, async () => {
  const script = fc.array(step, { maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(script, script, async (visitorSteps, serviceSteps) => {
      const visitor = new Witness(await path.visit());
      const served = await path.serve(PATIENCE_MS);
      if (!served) throw new Error('the visitor was not fetched');
      const service = new Witness(served);
      await Promise.all([follow(visitorSteps, visitor), follow(serviceSteps, service)]);
      const seen = (me: Witness, other: Witness) => ({ ...pick(me), missing: other.sent - me.received });
      const whole = { end: 'finished', intact: true, missing: 0 };
      expect([seen(visitor, service), seen(service, visitor)]).toEqual([whole, whole]);
    }),
    { numRuns: 150, interruptAfterTimeLimit: 60_000 },
  );
  expect(server.exited()).toBe(false);
});

function pick({ end, intact }: Witness): { end: string; intact: boolean } {
  return { end, intact };
}
