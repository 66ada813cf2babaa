import http, { type IncomingMessage, type ServerResponse } from 'node:http';

import { z } from 'zod';

import { isInternalKey } from '../protocol/internal-key.js';
import {
  CloseTunnelRequest,
  type CloseTunnelResponse,
  type Fence,
  FenceRequest,
  type FenceResponse,
  INTERNAL_KEY_HEADER,
  type UpdateTunnelResponse,
} from '../protocol/plane-api.js';
import { TunnelSettings } from '../protocol/tunnel-settings.js';
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

/** Health, readiness and metrics for everybody who can reach it; orders for who has the internal key. */
export class AdminSurface {
  private readonly server: http.Server;

  /** @param keys none: orders are not taken */
  constructor(
    private readonly keys: readonly string[],
    private readonly metrics: Metrics,
    private readonly actions: AdminActions,
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
      response.setHeader('content-type', this.metrics.registry.contentType).end(await this.metrics.registry.metrics());
      return;
    }
    const [, order, tunnelId = '', change = ''] =
      /^POST (?:\/(drain|undrain)|\/tunnels\/(?=[^/]{36}\/)([0-9a-f-]+)\/(close|fence|settings))$/i.exec(route) ?? [];
    if (order === undefined && tunnelId === '') return answer(response, 404, { code: 'NOT_FOUND' });
    if (!this.isAllowed(request.headers[INTERNAL_KEY_HEADER]))
      return answer(response, 401, { code: 'INVALID_INTERNAL_KEY' });
    if (order === undefined)
      return this.orderOnTunnel(change.toLowerCase(), tunnelId.toLowerCase(), await readJson(request), response);
    this.actions.setDraining(order === 'drain');
    return answer(response, 200, { draining: order === 'drain' });
  }

  private orderOnTunnel(order: string, tunnelId: string, body: unknown, response: ServerResponse): void {
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
