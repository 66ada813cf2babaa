import { expect } from 'vitest';

/**
 * `work` takes less than `limitMs`, by its own figure, at best of three: a machine that is busy with other things is late once,
 * what is too slow is late each time.
 */
export async function expectAtBest(limitMs: number, work: () => Promise<number>): Promise<void> {
  let best = Infinity;
  for (let i = 0; i < 3 && best >= limitMs; i++) best = Math.min(best, await work());
  expect(best).toBeLessThan(limitMs);
}
