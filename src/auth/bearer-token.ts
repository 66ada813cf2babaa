/**
 * The scheme and one word, nothing else (RFC 6750, 2.1). Anchored, and no two parts of it take the same character: anybody may send
 * this header, 16 KB of it, and passport-jwt's own pattern needs a third of a second of CPU for those.
 */
const BEARER = /^bearer +(\S+)$/i;

/** What of a request says who sends it. */
export interface WithAuthorization {
  readonly headers: { readonly authorization?: string | undefined };
}

/** The token in a request's `Authorization: Bearer`; `null` when there is none. */
export function bearerTokenOf({ headers: { authorization } }: WithAuthorization): string | null {
  return BEARER.exec(authorization ?? '')?.[1] ?? null;
}
