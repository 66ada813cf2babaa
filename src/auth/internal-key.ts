import { createHash, timingSafeEqual } from 'node:crypto';

import type { FastifyInstance } from 'fastify';

import type { Secret } from '../platform/config/config.js';
import { PlatformError } from '../platform/errors/error-register.js';
import { sendProblem } from '../platform/http/problem.filter.js';
import { INTERNAL_KEY_HEADER, INTERNAL_PREFIX } from '../protocol/plane-api.js';

/**
 * Refuses requests to the internal API without a key before their bodies are read: those may be large, and the guard of the
 * route hears of a request when all of it is there.
 */
export function refuseStrangers(server: FastifyInstance, keys: readonly Secret[]): void {
  server.addHook('onRequest', async (request, reply) => {
    // the route that was found: the URL itself has many spellings
    if (!request.routeOptions.url?.startsWith(INTERNAL_PREFIX)) return;
    const key = request.headers[INTERNAL_KEY_HEADER];
    if (typeof key === 'string' && isInternalKey(key, keys)) return;
    // what is still to come of the body is nobody's
    void reply.header('connection', 'close');
    sendProblem(new PlatformError('INVALID_INTERNAL_KEY'), request, reply);
  });
}

/** Whether `given` is one of the keys, in constant time over all of them. */
export function isInternalKey(given: string, keys: readonly Secret[]): boolean {
  const digest = sha256(given);
  // no early exit: every key is compared
  return keys.map((key) => timingSafeEqual(digest, sha256(key.reveal()))).includes(true);
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
