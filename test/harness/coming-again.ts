import type { Answer } from './api.js';

/** Each time a request waits for seconds: more is an outage. */
const TIMES_MAX = 5;

/**
 * Asks again what is answered 503 UNAVAILABLE: who has waited too long for a lock, or for a connection of the pool, is told to come
 * again, and nothing was done. So it is with many at once on a machine that is busy with other things.
 */
export async function comingAgain(ask: () => Promise<Answer>): Promise<Answer> {
  let answer = await ask();
  for (let i = 0; i < TIMES_MAX && answer.body?.code === 'UNAVAILABLE'; i++) answer = await ask();
  return answer;
}
