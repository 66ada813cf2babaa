import type { FastifyInstance } from 'fastify';
import type { Logger } from 'pino';

/**
 * Says once that somebody who is not in TRUST_PROXY sends `X-Forwarded-For`. If that is the load balancer, everybody behind it
 * counts as one caller until the setting names it.
 */
export function noticeUntrustedProxy(server: FastifyInstance, logger: Logger): void {
  let noticed = false;
  server.addHook('onRequest', async (request) => {
    const peer = request.socket.remoteAddress;
    // from a trusted peer, the client's address is another than the peer's
    if (noticed || request.headers['x-forwarded-for'] === undefined || request.ip !== peer) return;
    noticed = true;
    logger.warn({ peer }, 'X-Forwarded-For is ignored: if this is the load balancer, name it in TRUST_PROXY');
  });
}
