/** What a URL answers has this long, and is cut here: preflight asks small things. */
const TIMEOUT_MS = 5_000;
/** Prometheus lists its rules with all their texts: some 100 KB of ours. */
const BODY_CHARS_MAX = 20_000_000;

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

/** Asks without following anybody elsewhere. @throws what `fetch` throws, also after {@link TIMEOUT_MS} */
export async function ask(url: string, init: RequestInit = {}): Promise<HttpAnswer> {
  const response = await fetch(url, { ...init, redirect: 'manual', signal: AbortSignal.timeout(TIMEOUT_MS) });
  const text = await response.text();
  return { status: response.status, headers: response.headers, text: text.slice(0, BODY_CHARS_MAX) };
}

/** @throws SyntaxError when it is no JSON, Error when the status is not 200 */
export async function askJson(url: string): Promise<unknown> {
  const { status, text } = await ask(url);
  if (status !== 200) throw new Error(`${url} answered ${status}`);
  return JSON.parse(text);
}

/** `path` below `base`, whether or not that ends in a slash. */
export const below = (base: string, path: string): string => `${base.replace(/\/+$/, '')}${path}`;
