import { setTimeout } from 'node:timers/promises';

/**
 * Waits for something that sends no event, by asking again and again; the one place in the tests that waits by time.
 * Returns the first truthy answer.
 * @throws Error naming `what` when it has not come true in time.
 */
export async function until<T>(
  condition: () => Promise<T> | T,
  what: string,
  deadlineMs = 10_000,
): Promise<NonNullable<T>> {
  const deadline = performance.now() + deadlineMs;
  for (;;) {
    const answer = await condition();
    if (answer) return answer;
    if (performance.now() > deadline) throw new Error(`waited ${deadlineMs} ms in vain: ${what}`);
    await setTimeout(20);
  }
}
