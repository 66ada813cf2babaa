import type { FastifyInstance } from 'fastify';

import type { Secret } from '../platform/config/secret.js';
import { PlatformError } from '../platform/errors/error-register.js';
import { sendProblem } from '../platform/http/problem.filter.js';
import { isInternalKey } from '../protocol/internal-key.js';
import { INTERNAL_KEY_HEADER, INTERNAL_PREFIX } from '../protocol/plane-api.js';

/**
 * Refuses requests to the internal API without a key before their bodies are read: those may be large, and the guard of the
 * route hears of a request when all of it is there.
 */
export function refuseStrangers(server: FastifyInstance, keys: readonly Secret[]): void {
  server.addHook('onRequest', async (request, reply) => {
    // the route that was found: the URL itself has many spellings
    if (!request.routeOptions.url?.startsWith(INTERNAL_PREFIX)) return undefined;
    if (hasInternalKey(request.headers, keys)) return undefined;
    // what is still to come of the body is nobody's
    void reply.header('connection', 'close');
    sendProblem(new PlatformError('INVALID_INTERNAL_KEY'), request, reply);
    // only this ends the request here: without it its body is read, and what is wrong with that changes the status
    return reply;
  });
}

/** Whether a request comes with one of the keys. */
export function hasInternalKey(headers: NodeJS.Dict<string | string[]>, keys: readonly Secret[]): boolean {
  const given = headers[INTERNAL_KEY_HEADER];
  return (
    typeof given === 'string' &&
    isInternalKey(
      given,
      keys.map((key) => key.reveal()),
    )
  );
}
