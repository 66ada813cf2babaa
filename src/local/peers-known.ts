import { setTimeout as sleep } from 'node:timers/promises';

import { StartError } from './start-settings.js';

/** Bore-servers hear of a new one with their next heartbeat, which is due every 5 s. */
const KNOWN_TIMEOUT_MS = 30_000;
const ASK_INTERVAL_MS = 100;
const ANSWER_TIMEOUT_MS = 2_000;

/**
 * Resolves when each of some bore-servers knows all others of them: before, it cannot hand over what is theirs.
 * @param adminUrls where they show their metrics
 * @throws StartError when that takes too long
 */
export async function peersKnown(adminUrls: readonly string[], signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + KNOWN_TIMEOUT_MS;
  for (const url of adminUrls) {
    while ((await peersOf(url)) < adminUrls.length - 1) {
      signal.throwIfAborted();
      if (performance.now() > deadline) throw new StartError(`The bore-server at ${url} does not hear of the others`);
      await sleep(ASK_INTERVAL_MS);
    }
  }
}

async function peersOf(adminUrl: string): Promise<number> {
  try {
    const response = await fetch(`${adminUrl}/metrics`, { signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) });
    return Number(/^bore_server_peers (\d+)$/m.exec(await response.text())?.[1] ?? 0);
  } catch {
    return 0; // asked again
  }
}
