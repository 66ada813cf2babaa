import { BlockList, isIPv6 } from 'node:net';

import type { FastifyInstance, FastifyRequest } from 'fastify';

import type { Config } from '../platform/config/config.js';
import { PlatformError } from '../platform/errors/error-register.js';
import { sendProblem } from '../platform/http/problem.filter.js';
import { bringsMetricsToken } from '../protocol/metrics-token.js';

/** This machine and private networks (RFC 1918, RFC 4193, RFC 6598, link-local): where Prometheus is, and the public is not. */
const NEAR = new BlockList();
for (const [network, prefix] of [
  ['127.0.0.0', 8],
  ['10.0.0.0', 8],
  // some clusters have their pods there
  ['100.64.0.0', 10],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
  ['169.254.0.0', 16],
] as const)
  NEAR.addSubnet(network, prefix, 'ipv4');
for (const [network, prefix] of [
  ['::1', 128],
  ['fc00::', 7],
  ['fe80::', 10],
] as const)
  NEAR.addSubnet(network, prefix, 'ipv6');

/** Whoever sends one of these is a proxy, and asks for somebody else. */
const PROXY_HEADERS = ['forwarded', 'via', 'x-forwarded-for', 'x-real-ip'] as const;

/**
 * Keeps metrics on the public listener from those whom they do not concern. With METRICS_TOKEN it is asked of everybody; with
 * METRICS_PORT they are not here at all; without either, only peers on private networks see them that come directly.
 */
export function guardMetrics(server: FastifyInstance, config: Config): void {
  server.addHook('onRequest', async (request, reply) => {
    // the route that was found: the URL itself has many spellings
    const { url } = request.routeOptions;
    if (url !== '/metrics' && !url?.startsWith('/metrics/')) return undefined;
    const refusal = refusalOf(request, config);
    if (!refusal) return undefined;
    if (refusal.code === 'UNAUTHENTICATED') void reply.header('www-authenticate', 'Bearer');
    sendProblem(refusal, request, reply);
    // only this ends the request here
    return reply;
  });
}

function refusalOf(request: FastifyRequest, { METRICS_PORT, METRICS_TOKEN }: Config): PlatformError | undefined {
  if (METRICS_PORT !== undefined) return new PlatformError('NOT_FOUND');
  const { headers, socket } = request;
  if (METRICS_TOKEN)
    return bringsMetricsToken(headers.authorization, METRICS_TOKEN.reveal())
      ? undefined
      : new PlatformError('UNAUTHENTICATED');
  const peer = socket.remoteAddress ?? '';
  const isNear = NEAR.check(peer, isIPv6(peer) ? 'ipv6' : 'ipv4');
  if (isNear && PROXY_HEADERS.every((name) => headers[name] === undefined)) return undefined;
  return new PlatformError('FORBIDDEN', {
    detail: 'Metrics are shown to direct peers on private networks: set METRICS_TOKEN or METRICS_PORT for others',
  });
}
