import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';

import { FastifyAdapter } from '@nestjs/platform-fastify';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';

import { INTERNAL_PREFIX } from '../../protocol/plane-api.js';
import { givenRequestId, REQUEST_ID_HEADER } from '../../protocol/request-id.js';
import { PlatformError } from '../errors/error-register.js';
import { addressOf } from './request-address.js';
import { answerClientError } from './client-error.js';
import type { Lifecycle } from './lifecycle.js';
import { sendProblem } from './problem.filter.js';

/** The largest request of the public API is well below 1 KiB. */
const BODY_BYTES_MAX = 64 * 1024;
/**
 * A heartbeat of a bore-server with a session on every port and usage of each: 65,535 × (160 + 125) bytes, 2,000 records
 * of connections, 350 bytes each, and room for sessions that have ended and for what is kept of them.
 */
const INTERNAL_BODY_BYTES_MAX = 24 * 1024 * 1024;
/** A whole request must have arrived in this time, its headers in half of it: slow senders hold sockets. */
const REQUEST_TIMEOUT_MS = 10_000;
const HEADERS_TIMEOUT_MS = 5_000;
/** How often Node looks for requests that are too slow; its default of 30 s would be the real limit. */
const CHECK_INTERVAL_MS = 1_000;
/** Longer than a load balancer keeps idle connections (nginx: 60 s), or it would send into a closed one. */
const KEEP_ALIVE_TIMEOUT_MS = 75_000;

/** What a load balancer or a scraper asks for every few seconds. */
const ROUTINE = /^\/(health|metrics)(\/|$)/;

/**
 * The HTTP server, with a limit on everything that a caller could make large or slow.
 * @param trustedProxies addresses and networks whose `X-Forwarded-For` names the client
 */
export function createHttpServer(trustedProxies: readonly string[]): FastifyAdapter {
  return new FastifyAdapter({
    trustProxy: trustedProxies.length > 0 ? [...trustedProxies] : false,
    bodyLimit: BODY_BYTES_MAX,
    requestTimeout: REQUEST_TIMEOUT_MS,
    keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
    // a request on a kept-alive connection is served to the end while we close; see `connection: close` below
    return503OnClosing: false,
    genReqId: ({ headers }: IncomingMessage) => givenRequestId(headers) ?? randomUUID(),
    http: { headersTimeout: HEADERS_TIMEOUT_MS, connectionsCheckingInterval: CHECK_INTERVAL_MS },
    clientErrorHandler: answerClientError,
    // what Fastify refuses before routing, such as a URL that is none
    frameworkErrors: (_error: Error, request: FastifyRequest, reply: FastifyReply) =>
      sendProblem(new PlatformError('MALFORMED_REQUEST'), request, reply),
  });
}

/** JSON bodies only, request ids, one log line for each request, larger bodies for bore-servers, and an end to kept-alive connections. */
export function installHooks(server: FastifyInstance, logger: Logger, lifecycle: Lifecycle): void {
  server.removeContentTypeParser('text/plain');
  server.addHook('onRoute', (route) => {
    if (route.url.startsWith(INTERNAL_PREFIX)) route.bodyLimit = INTERNAL_BODY_BYTES_MAX;
  });
  server.addHook('onRequest', async (request, reply) => {
    void reply.header(REQUEST_ID_HEADER, request.id);
  });
  server.addHook('onSend', async (_request, reply) => {
    if (lifecycle.draining) void reply.header('connection', 'close');
  });
  server.addHook('onResponse', async (request, reply) => logRequest(logger, request, reply));
}

/** One line for each request. The route and not the URL, which is its caller's text and may hold secrets. */
function logRequest(logger: Logger, request: FastifyRequest, reply: FastifyReply): void {
  const { url: route = '' } = request.routeOptions;
  const level = reply.statusCode >= 500 ? 'error' : ROUTINE.test(route) ? 'debug' : 'info';
  if (!logger.isLevelEnabled(level)) return;
  logger[level](
    {
      requestId: request.id,
      method: request.method,
      // none: there is no such route
      route: route || undefined,
      status: reply.statusCode,
      durationMs: Math.round(reply.elapsedTime * 10) / 10,
      bytesIn: lengthOf(request.headers['content-length']),
      bytesOut: lengthOf(reply.getHeader('content-length')),
      userId: request.caller?.userId,
      clientAddress: addressOf(request.ip),
    },
    'request',
  );
}

/** Of a body, in bytes; undefined: nobody said, as for a stream. */
function lengthOf(header: unknown): number | undefined {
  return header === undefined ? undefined : Number(header);
}
