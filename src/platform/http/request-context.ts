import { AsyncLocalStorage } from 'node:async_hooks';

import type { FastifyInstance, FastifyRequest } from 'fastify';

declare module 'fastify' {
  interface FastifyRequest {
    /** Set by {@link noteWrite}. */
    wroteFor?: string;
  }
}

const storage = new AsyncLocalStorage<FastifyRequest>();

/** The request that the running code answers; undefined in jobs and at start. */
export function currentRequest(): FastifyRequest | undefined {
  return storage.getStore();
}

/**
 * Says that the request that is being answered has written something that an account must see from now on, where nothing else
 * says so: a login has no caller yet, and a GET is not expected to write.
 */
export function noteWrite(accountId: string): void {
  const request = currentRequest();
  if (request) request.wroteFor = accountId;
}

/**
 * Makes {@link currentRequest} work in guards, routes and whatever they call. From the hook behind the body's arrival: what
 * reads the body off the socket runs in the socket's context and would lose it.
 */
export function keepRequestContext(server: FastifyInstance): void {
  server.addHook('preValidation', (request, _reply, done) => storage.run(request, done));
}
