import { expect } from 'vitest';

/**
 * `work` stays below `limit`, by the figure that it answers (ms, mostly), at best of three: a machine that is busy with other things
 * is late once, what is too slow is late each time.
 */
export async function expectAtBest(limit: number, work: () => Promise<number>): Promise<void> {
  let best = Infinity;
  for (let i = 0; i < 3 && best >= limit; i++) best = Math.min(best, await work());
  expect(best).toBeLessThan(limit);
}
