import { createHash, timingSafeEqual } from 'node:crypto';

/** Whether `given` is one of the internal API's keys, in constant time over all of them. */
export function isInternalKey(given: string, keys: readonly string[]): boolean {
  const digest = sha256(given);
  // no early exit: every key is compared
  return keys.map((key) => timingSafeEqual(digest, sha256(key))).includes(true);
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
