import http, { type IncomingMessage, type ServerResponse } from 'node:http';

import type { Logger } from 'pino';
import { z } from 'zod';

import { isInternalKey } from '../protocol/internal-key.js';
import { bringsMetricsToken } from '../protocol/metrics-token.js';
import {
  CloseTunnelRequest,
  type CloseTunnelResponse,
  type Fence,
  FenceRequest,
  type FenceResponse,
  INTERNAL_KEY_HEADER,
  type UpdateTunnelResponse,
} from '../protocol/plane-api.js';
import { givenRequestId } from '../protocol/request-id.js';
import { TunnelSettings } from '../protocol/tunnel-settings.js';
import { beginRequest, ending, SpanKind, within } from '../tracing/spans.js';
import { ADMIN_BODY_BYTES_MAX } from './limits.js';
import type { Metrics } from './metrics.js';
import { openPort } from './open-port.js';

/** A request must have arrived, and its answer be ready, in this time. */
const REQUEST_TIMEOUT_MS = 5_000;

interface AdminActions {
  isReady(): boolean;
  closeTunnel(tunnelId: string, reason: string): boolean;
  fenceTunnel(fence: Fence): boolean;
  updateTunnel(tunnelId: string, settings: TunnelSettings): boolean;
  /** Whether the control plane should place new tunnels elsewhere. */
  setDraining(draining: boolean): void;
}

/** Health, readiness and (without a token of their own) metrics for everybody who can reach it; orders for who has the internal key. */
export class AdminSurface {
  private readonly server: http.Server;

  /**
   * @param keys none: orders are not taken
   * @param metricsToken who may see the metrics; undefined: everybody who can reach them
   */
  constructor(
    private readonly keys: readonly string[],
    private readonly metrics: Metrics,
    private readonly metricsToken: string | undefined,
    private readonly actions: AdminActions,
    private readonly logger: Logger,
  ) {
    this.server = http.createServer(
      { requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS, connectionsCheckingInterval: 1_000 },
      (request, response) => {
        this.handle(request, response).catch(() => response.destroy());
      },
    );
  }

  /** Resolves with the port. */
  listen(port: number, address: string): Promise<number> {
    return openPort(this.server, port, address);
  }

  close(): void {
    this.server.close();
    this.server.closeAllConnections();
  }

  private async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const route = `${request.method} ${request.url?.split('?', 1)[0]}`;
    if (route === 'GET /health') return answer(response, 200, { status: 'ok' });
    if (route === 'GET /ready')
      return answer(response, this.actions.isReady() ? 200 : 503, { ready: this.actions.isReady() });
    if (route === 'GET /metrics') {
      const { authorization } = request.headers;
      if (this.metricsToken !== undefined && !bringsMetricsToken(authorization, this.metricsToken)) {
        response.setHeader('www-authenticate', 'Bearer');
        return answer(response, 401, { code: 'UNAUTHENTICATED' });
      }
      response.setHeader('content-type', this.metrics.registry.contentType).end(await this.metrics.registry.metrics());
      return;
    }
    const [, order, tunnelId = '', change = ''] =
      /^POST (?:\/(drain|undrain)|\/tunnels\/(?=[^/]{36}\/)([0-9a-f-]+)\/(close|fence|settings))$/i.exec(route) ?? [];
    if (order === undefined && tunnelId === '') return answer(response, 404, { code: 'NOT_FOUND' });
    if (!this.isAllowed(request.headers[INTERNAL_KEY_HEADER]))
      return answer(response, 401, { code: 'INVALID_INTERNAL_KEY' });
    const requestId = givenRequestId(request.headers);
    const carryOut = async (): Promise<void> => {
      if (order === undefined) {
        const about = { order: change.toLowerCase(), tunnelId: tunnelId.toLowerCase(), requestId };
        return this.orderOnTunnel(about, await readJson(request), response);
      }
      this.logger.info({ order: order.toLowerCase(), requestId }, 'order');
      this.actions.setDraining(order.toLowerCase() === 'drain');
      return answer(response, 200, { draining: order.toLowerCase() === 'drain' });
    };
    const path = order === undefined ? `/tunnels/{id}/${change.toLowerCase()}` : `/${order.toLowerCase()}`;
    return traced(path, tunnelId.toLowerCase(), request, response, carryOut);
  }

  /** @param about what is logged of it; `requestId` is of the request at a backend that led to it */
  private orderOnTunnel(
    about: { readonly order: string; readonly tunnelId: string; readonly requestId: string | undefined },
    body: unknown,
    response: ServerResponse,
  ): void {
    const { order, tunnelId } = about;
    this.logger.info(about, 'order');
    const close = order === 'close' ? CloseTunnelRequest.safeParse(body) : undefined;
    if (close?.success) {
      const closed = this.actions.closeTunnel(tunnelId, close.data.reason);
      return answer(response, 200, { closed } satisfies CloseTunnelResponse);
    }
    const fence = order === 'fence' ? FenceRequest.safeParse(body) : undefined;
    if (fence?.success) {
      const fenced = this.actions.fenceTunnel({ tunnelId, ...fence.data });
      return answer(response, 200, { fenced } satisfies FenceResponse);
    }
    const settings = order === 'settings' ? TunnelSettings.safeParse(body) : undefined;
    if (!settings?.success) return answer(response, 400, { code: 'VALIDATION_FAILED' });
    const updated = this.actions.updateTunnel(tunnelId, settings.data);
    return answer(response, 200, { updated } satisfies UpdateTunnelResponse);
  }

  private isAllowed(given: string | string[] | undefined): boolean {
    return typeof given === 'string' && isInternalKey(given, this.keys);
  }
}

/** An order is a step of the trace of the backend that gives it: whoever comes here has the internal key. */
async function traced(
  path: string,
  tunnelId: string,
  request: IncomingMessage,
  response: ServerResponse,
  work: () => Promise<void>,
): Promise<void> {
  const attributes = {
    'http.request.method': 'POST',
    'http.route': path,
    ...(tunnelId !== '' && { 'bore.tunnel.id': tunnelId }),
  };
  const { traceparent } = request.headers;
  const span = beginRequest({ name: `POST ${path}`, kind: SpanKind.SERVER, attributes }, traceparent, true);
  if (!span) return work();
  return ending(span, () =>
    within(span, async () => {
      await work();
      span.setAttribute('http.response.status_code', response.statusCode);
    }),
  );
}

function answer(response: ServerResponse, status: number, body: object): void {
  response
    .writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' })
    .end(JSON.stringify(body));
}

/** The body, or `undefined` when it is too large or no JSON. */
async function readJson(request: IncomingMessage): Promise<unknown> {
  let body = '';
  for await (const chunk of request.setEncoding('utf8')) {
    body += z.string().parse(chunk);
    if (body.length > ADMIN_BODY_BYTES_MAX) return undefined;
  }
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}
