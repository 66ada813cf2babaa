import { SpanStatusCode } from '@opentelemetry/api';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';

import { beginRequest, isTracing, type Span, SpanKind, within } from '../../tracing/spans.js';

const TunnelParam = z.object({ id: z.guid() });

declare module 'fastify' {
  interface FastifyRequest {
    /** Set while tracing is on. */
    span?: Span;
  }
}

/** Asked every few seconds by machines, each time alike: their traces would bury all others. */
const UNTRACED = /^\/(health|metrics)(\/|$)/;

/**
 * A span for each request, named by the route's template and open until the answer has gone; what guards and routes do is below it. To be
 * installed before all other hooks.
 * @param isTrusted whether a request comes from one of ours, whose trace it goes on with
 */
export function traceRequests(server: FastifyInstance, isTrusted: (request: FastifyRequest) => boolean): void {
  if (!isTracing()) return;
  server.addHook('onRequest', (request, reply, done) => {
    const route = request.routeOptions.url;
    if (route !== undefined && UNTRACED.test(route)) return done();
    const span = beginRequest(
      {
        name: route === undefined ? request.method : `${request.method} ${route}`,
        kind: SpanKind.SERVER,
        attributes: {
          'http.request.method': request.method,
          'url.scheme': request.protocol,
          'bore.request.id': request.id,
          ...(route !== undefined && { 'http.route': route }),
        },
      },
      request.headers.traceparent,
      isTrusted(request),
    );
    if (!span) return done();
    request.span = span;
    // also when the caller has gone before there was an answer
    reply.raw.once('close', () => endRequestSpan(request, reply.raw.writableFinished ? reply.statusCode : undefined));
    within(span, done);
  });
  // again behind the body's arrival: what reads it off the socket runs in the socket's context
  server.addHook('preValidation', (request, _reply, done) => inSpanOf(request, done));
  // the line of the log says whose it is
  server.addHook('onResponse', (request, _reply, done) => inSpanOf(request, done));
}

/** Ends a request's span: of a stream when it begins, for it may last for days. @param status undefined: the caller has gone */
export function endRequestSpan(request: FastifyRequest, status: number | undefined): void {
  const { span, caller } = request;
  if (!span?.isRecording()) return;
  if (caller) span.setAttribute('user.id', caller.userId);
  // an id and no other text of the caller's
  const tunnel = request.routeOptions.url?.includes('/tunnels/:id') ? TunnelParam.safeParse(request.params) : undefined;
  if (tunnel?.success) span.setAttribute('bore.tunnel.id', tunnel.data.id);
  if (status === undefined) span.setAttribute('error.type', 'aborted');
  else span.setAttribute('http.response.status_code', status);
  if (status !== undefined && status >= 500) {
    span.setAttribute('error.type', String(status));
    span.setStatus({ code: SpanStatusCode.ERROR });
  }
  span.end();
}

function inSpanOf({ span }: FastifyRequest, done: () => void): void {
  if (span) within(span, done);
  else done();
}
