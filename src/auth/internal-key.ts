import { createHash, timingSafeEqual } from 'node:crypto';

import type { Secret } from '../platform/config/config.js';

/** Whether `given` is one of the keys, in constant time over all of them. */
export function isInternalKey(given: string, keys: readonly Secret[]): boolean {
  const digest = sha256(given);
  // no early exit: every key is compared
  return keys.map((key) => timingSafeEqual(digest, sha256(key.reveal()))).includes(true);
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
