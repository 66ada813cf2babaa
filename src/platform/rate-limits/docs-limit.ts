import type { FastifyInstance } from 'fastify';

import { PlatformError } from '../errors/error-register.js';
import { sendProblem } from '../http/problem.filter.js';
import { limitedAddressOf } from './client-address.js';
import { retryAfterOf } from './counter-window.js';
import type { Counters } from './counters.js';

/**
 * Counts requests for the description of the API and its page with all others of their address: they are large and for everybody, and
 * no guard of ours stands before routes that are not ours.
 */
export function limitDocs(server: FastifyInstance, counters: Counters, quotaPerMinute: number): void {
  server.addHook('onRequest', async (request, reply) => {
    const { url = '' } = request.routeOptions;
    if (!url.startsWith('/api/') || url.startsWith('/api/v1/')) return undefined;
    // the window that addressLimits has for who brings no login
    const window = { key: `address:${limitedAddressOf(request.ip)}`, quota: quotaPerMinute, seconds: 60 };
    const taken = await counters.take([window]);
    if (taken.granted) return undefined;
    counters.refusals.emit('refused', 'address');
    sendProblem(new PlatformError('TOO_MANY_REQUESTS', { retryAfter: retryAfterOf(taken) }), request, reply);
    // only this ends the request here
    return reply;
  });
}
