import { createHash, randomBytes } from 'node:crypto';

/** `rt_` and 256 random bits, base64url. Random enough to be stored under a plain hash (OWASP ASVS 5.0, 6.5.2). */
export function newRefreshToken(): string {
  return `rt_${randomBytes(32).toString('base64url')}`;
}

/** What is stored of a refresh token. */
export function hashRefreshToken(token: string): Buffer<ArrayBuffer> {
  return Buffer.from(createHash('sha256').update(token).digest());
}
