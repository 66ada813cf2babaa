import { Api } from './api.js';

/** However busy the machine is: what holds up every request of a backend is a fault of its own. */
const ANSWER_MS_MAX = 5_000;

/**
 * Answers what `ask` does, and how many ms more it took than a request beside it to a backend's `/health/live`, which looks
 * at nothing: what else the machine does holds up both.
 * @throws Error when it took more than five seconds, whatever the other did
 */
export async function heldUp<T>(url: string, ask: () => Promise<T>): Promise<{ answer: T; ms: number }> {
  const began = performance.now();
  const taken = () => performance.now() - began;
  const [asked, liveMs] = await Promise.all([
    ask().then((answer) => ({ answer, ms: taken() })),
    new Api(url).get('/health/live').then(taken),
  ]);
  if (asked.ms > ANSWER_MS_MAX) throw new Error(`answered after ${asked.ms.toFixed(0)} ms`);
  return { answer: asked.answer, ms: Math.max(0, asked.ms - liveMs) };
}
