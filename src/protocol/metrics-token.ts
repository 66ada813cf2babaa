import { createHash, timingSafeEqual } from 'node:crypto';

/**
 * Whether an `Authorization` header brings the token that metrics are shown for. Digests are compared, in constant time, so that
 * neither the token's length nor its beginning can be found out by asking.
 */
export function bringsMetricsToken(authorization: string | undefined, token: string): boolean {
  const [, given] = /^Bearer +(\S+) *$/i.exec(authorization ?? '') ?? [];
  return timingSafeEqual(sha256(given ?? ''), sha256(token)) && given !== undefined;
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
