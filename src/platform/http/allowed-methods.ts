import type { FastifyInstance } from 'fastify';

import { PlatformError } from '../errors/error-register.js';
import { sendProblem } from './problem.filter.js';

/** Answers a method that a known path does not have with 405 and `Allow`; unknown paths go on to 404. */
export function refuseOtherMethods(server: FastifyInstance): void {
  const methods = new Map<string, { readonly path: RegExp; readonly allowed: Set<string> }>();
  server.addHook('onRoute', ({ url, method }) => {
    // what stands for everything below a path knows no path of its own
    if (url.includes('*')) return;
    const route = methods.get(url) ?? { path: patternOf(url), allowed: new Set() };
    for (const name of [method].flat()) route.allowed.add(name);
    methods.set(url, route);
  });
  server.addHook('onRequest', async (request, reply) => {
    if (!request.is404) return undefined;
    const path = request.url.split('?', 1)[0] ?? '';
    const allowed = [...methods.values()]
      .filter((route) => route.path.test(path))
      .flatMap((route) => [...route.allowed]);
    if (allowed.length === 0) return undefined;
    void reply.header('allow', [...new Set(allowed)].sort().join(', '));
    // what is still to come of the body is nobody's
    void reply.header('connection', 'close');
    sendProblem(new PlatformError('METHOD_NOT_ALLOWED'), request, reply);
    // only this ends the request here: without it its body is read, and what is wrong with that changes the status
    return reply;
  });
}

/** `/tunnels/:id` as a pattern of the paths that it stands for. */
function patternOf(url: string): RegExp {
  const parts = url
    .split('/')
    .map((part) => (part.startsWith(':') ? '[^/]+' : part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')));
  return new RegExp(`^${parts.join('/')}/?$`);
}
