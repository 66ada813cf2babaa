import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';

import { z } from 'zod';

import { until } from '../harness/until.js';

const Value = z.object({ stringValue: z.string().optional(), intValue: z.union([z.number(), z.string()]).optional() });
const Attributes = z
  .array(z.object({ key: z.string(), value: Value }))
  .transform((list) =>
    Object.fromEntries(list.map(({ key, value }) => [key, String(value.stringValue ?? value.intValue)])),
  );
const Export = z.object({
  resourceSpans: z.array(
    z.object({
      resource: z.object({ attributes: Attributes }),
      scopeSpans: z.array(
        z.object({
          spans: z.array(
            z.object({
              traceId: z.string(),
              spanId: z.string(),
              parentSpanId: z.string().optional(),
              name: z.string(),
              kind: z.number(),
              attributes: Attributes,
              links: z.array(z.object({ traceId: z.string(), spanId: z.string() })).default([]),
              status: z.object({ code: z.number().optional() }).optional(),
            }),
          ),
        }),
      ),
    }),
  ),
});
type Exported = z.infer<typeof Export>['resourceSpans'][number]['scopeSpans'][number]['spans'][number];

/** A span as it arrived, with whoever sent it. */
export interface ReceivedSpan extends Exported {
  readonly service: string;
}

/** A collector at the wire: takes OTLP over HTTP (JSON), on a free loopback port. */
export class Collector {
  readonly spans: ReceivedSpan[] = [];
  /** Every body, as it came. */
  readonly bodies: string[] = [];
  readonly contentTypes = new Set<string>();
  readonly headers: http.IncomingHttpHeaders[] = [];
  readonly resources: Record<string, string>[] = [];

  private constructor(
    private readonly server: http.Server,
    readonly url: string,
  ) {}

  /** @param gate what its answers wait for */
  static async start(gate: Promise<void> = Promise.resolve()): Promise<Collector> {
    const server = http.createServer((request, response) => {
      void text(request).then(async (body) => {
        collector.take(request, body);
        await gate;
        response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const collector: Collector = new Collector(server, urlOf(server));
    return collector;
  }

  /** What makes a program send its traces here, soon. */
  get env(): NodeJS.ProcessEnv {
    return {
      OTEL_EXPORTER_OTLP_ENDPOINT: this.url,
      OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
      OTEL_BSP_SCHEDULE_DELAY: '50',
    };
  }

  /** Waits for the first span that is as wanted. */
  span(what: string, wanted: (span: ReceivedSpan) => boolean): Promise<ReceivedSpan> {
    return until(() => this.spans.find(wanted), `a span: ${what}`);
  }

  /** Waits until the trace has a span of each of these names, and returns all of the trace. */
  async trace(traceId: string, ...names: readonly (string | RegExp)[]): Promise<ReceivedSpan[]> {
    const all = () => this.spans.filter((span) => span.traceId === traceId);
    const has = (name: string | RegExp) =>
      all().some((span) => (typeof name === 'string' ? span.name === name : name.test(span.name)));
    await until(() => names.every(has), `trace ${traceId} with ${names.join(', ')}`).catch((cause: unknown) => {
      throw new Error(
        `it has ${all()
          .map(({ name }) => name)
          .join(', ')}`,
        { cause },
      );
    });
    return all();
  }

  stop(): void {
    this.server.close();
    this.server.closeAllConnections();
  }

  private take(request: http.IncomingMessage, body: string): void {
    this.bodies.push(body);
    this.headers.push(request.headers);
    const type = request.headers['content-type'] ?? '';
    this.contentTypes.add(type);
    if (request.url !== '/v1/traces' || type !== 'application/json') return;
    for (const { resource, scopeSpans } of Export.parse(JSON.parse(body)).resourceSpans) {
      this.resources.push(resource.attributes);
      const service = resource.attributes['service.name'] ?? '';
      for (const { spans } of scopeSpans) this.spans.push(...spans.map((span) => ({ ...span, service })));
    }
  }
}

/** A port that takes connections, and requests, and never answers. */
export async function startSilentCollector(): Promise<{ url: string; connections: () => number; stop: () => void }> {
  let connections = 0;
  const server = http.createServer((request) => void request.resume());
  server.on('connection', () => connections++);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const stop = (): void => {
    server.close();
    server.closeAllConnections();
  };
  return { url: urlOf(server), connections: () => connections, stop };
}

function urlOf(server: http.Server): string {
  // oxlint-disable-next-line typescript/consistent-type-assertions -- a TCP server has no other kind of address
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
