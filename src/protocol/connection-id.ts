/**
 * Ids of visitors, as `{"Connection":"<uuid>"}` tells them and `{"Accept":"<uuid>"}` repeats them: the tunnel's public port
 * in the first 16 bits, then 112 random ones. Where many servers share one domain, the port names the server whose visitor
 * it is, as it does in a `Hello` (peer-link.ts). It is a signpost and no proof: who may fetch the visitor is decided by
 * the client's answer to the challenge, and by its knowing the rest.
 */
import { randomBytes } from 'node:crypto';

import { uuidOf } from './challenge.js';

/** The random part: 2^112 is as far out of reach as 2^128. */
const RANDOM_BYTES = 14;

/** An id for a visitor of the tunnel at this public port. */
export function newConnectionId(port: number): string {
  const bytes = Buffer.alloc(2 + RANDOM_BYTES);
  bytes.writeUInt16BE(port);
  randomBytes(RANDOM_BYTES).copy(bytes, 2);
  return uuidOf(bytes);
}

/** The public port that an id speaks of. */
export function portOfConnectionId(id: string): number {
  return Number.parseInt(id.slice(0, 4), 16);
}
