import { setTimeout as delay } from 'node:timers/promises';

import { LISTENER_RETRY_MS, REQUEST_MS } from './limits.js';
import type { Login } from './login.js';
import type { Measurements } from './measurements.js';

/** Listens to a user's events until `signal`; how long a stream took to open, and that one broke, are measurements. */
export async function listen(
  url: string,
  login: Login,
  measurements: Measurements,
  onEvent: () => void,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const due = performance.now();
    let opened = false;
    try {
      const response = await open(url, await login.accessToken(), signal);
      opened = true;
      measurements.add('GET events (stream)', performance.now() - due);
      for await (const chunk of response) {
        for (const line of Buffer.from(chunk).toString('latin1').split('\n')) if (line.startsWith('event: ')) onEvent();
      }
      throw new Error('the stream ended');
    } catch (error) {
      if (signal.aborted) return;
      const reason = error instanceof Error ? error.message : String(error);
      measurements.add('GET events (stream)', opened ? 0 : performance.now() - due, `GET events: ${reason}`);
    }
    await delay(LISTENER_RETRY_MS, undefined, { signal }).catch(() => undefined);
  }
}

/** The stream itself has no time limit, its opening has. */
async function open(url: string, accessToken: string, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(new Error('no answer in time')), REQUEST_MS);
  try {
    const response = await fetch(`${url}/api/v1/events`, {
      headers: { authorization: `Bearer ${accessToken}`, accept: 'text/event-stream' },
      signal: AbortSignal.any([signal, patience.signal]),
    });
    if (!response.ok || !response.body) throw new Error(`HTTP status ${response.status}`);
    return response.body;
  } finally {
    clearTimeout(timer);
  }
}
