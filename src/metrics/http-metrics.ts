import { Injectable } from '@nestjs/common';
import {
  InjectMetric,
  makeCounterProvider,
  makeGaugeProvider,
  makeHistogramProvider,
} from '@willsoto/nestjs-prometheus';
import type { FastifyInstance } from 'fastify';
import type { Counter, Gauge, Histogram } from 'prom-client';

const REQUESTS = 'http_requests_total';
const IN_FLIGHT = 'http_requests_in_flight';
const DURATION = 'http_request_duration_seconds';

/** Route label of a request that matches none of ours: the URL itself is the caller's text and unbounded. */
const UNMATCHED = 'unmatched';
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

/** Rate, errors and duration of every route. */
@Injectable()
export class HttpMetrics {
  constructor(
    @InjectMetric(REQUESTS) private readonly requests: Counter,
    @InjectMetric(IN_FLIGHT) private readonly inFlight: Gauge,
    @InjectMetric(DURATION) private readonly duration: Histogram,
  ) {}

  install(server: FastifyInstance): void {
    server.addHook('onRequest', async (_request, reply) => {
      this.inFlight.inc();
      // comes once, also of a caller who has left, whose request has no answer
      reply.raw.once('close', () => this.inFlight.dec());
    });
    server.addHook('onResponse', async (request, reply) => {
      const method = METHODS.has(request.method) ? request.method : 'other';
      const route = request.routeOptions.url ?? UNMATCHED;
      this.requests.inc({ method, route, status: String(reply.statusCode) });
      // a stream's end says when its client went, and not how long it waited
      if (!String(reply.raw.getHeader('content-type')).startsWith('text/event-stream'))
        this.duration.observe({ method, route }, reply.elapsedTime / 1000);
    });
  }
}

export const httpMetricProviders = [
  makeCounterProvider({ name: REQUESTS, help: 'HTTP requests answered', labelNames: ['method', 'route', 'status'] }),
  makeGaugeProvider({ name: IN_FLIGHT, help: 'HTTP requests that are being answered, event streams too' }),
  makeHistogramProvider({
    name: DURATION,
    help: 'Time from a request’s arrival to the end of its answer',
    labelNames: ['method', 'route'],
    // around the targets: P95 200 ms and 500 ms, P99 500 ms and 1 s
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2.5, 5, 10],
  }),
  HttpMetrics,
];
