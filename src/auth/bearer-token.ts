import { z } from 'zod';

/**
 * The scheme and one word, nothing else (RFC 6750, 2.1). Anchored, and no two parts of it take the same character: anybody may send
 * this header, 16 KB of it, and passport-jwt's own pattern needs a third of a second of CPU for those.
 */
const BEARER = /^bearer +(\S+)$/i;

const WithHeader = z.object({ headers: z.object({ authorization: z.string().max(16_384) }) });

/** The token in a request's `Authorization: Bearer`; `null` when there is none. */
export function bearerTokenOf(request: unknown): string | null {
  const parsed = WithHeader.safeParse(request);
  return parsed.success ? (BEARER.exec(parsed.data.headers.authorization)?.[1] ?? null) : null;
}
