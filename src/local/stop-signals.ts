/** npm passes Ctrl-C on although the terminal has sent it to us already: that is one wish, not two. */
const SAME_WISH_MS = 1_000;

/**
 * Aborts at the first SIGINT, SIGTERM or SIGHUP; calls `force` at the next one.
 * SIGHUP is what a closed terminal sends.
 */
export function stopOnSignals(force: () => void): AbortSignal {
  const stop = new AbortController();
  let first = 0;
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      if (!stop.signal.aborted) {
        first = performance.now();
        stop.abort();
      } else if (performance.now() - first > SAME_WISH_MS) {
        force();
      }
    });
  }
  return stop.signal;
}
