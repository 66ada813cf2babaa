import { AsyncLocalStorage } from 'node:async_hooks';

import type { FastifyInstance, FastifyRequest } from 'fastify';

const storage = new AsyncLocalStorage<FastifyRequest>();

/** The request that the running code answers; undefined in jobs and at start. */
export function currentRequest(): FastifyRequest | undefined {
  return storage.getStore();
}

/**
 * Makes {@link currentRequest} work in guards, routes and whatever they call. From the hook behind the body's arrival: what
 * reads the body off the socket runs in the socket's context and would lose it.
 */
export function keepRequestContext(server: FastifyInstance): void {
  server.addHook('preValidation', (request, _reply, done) => storage.run(request, done));
}
