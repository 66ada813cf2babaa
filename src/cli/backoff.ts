import { RECONNECT_MS_MAX, RECONNECT_MS_MIN } from './limits.js';

/**
 * How long to wait after so many failures in a row (1 …): doubling, and a random half of it, so that the clients of a
 * server that comes back do not come all at once.
 */
export function reconnectDelayMs(failures: number): number {
  const ceiling = Math.min(RECONNECT_MS_MAX, RECONNECT_MS_MIN * 2 ** Math.min(failures - 1, 16));
  return ceiling * (0.5 + Math.random() / 2);
}
