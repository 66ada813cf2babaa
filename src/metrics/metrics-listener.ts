import { once } from 'node:events';
import http, { type IncomingMessage, type ServerResponse } from 'node:http';

import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import type { Logger } from 'pino';
import { register } from 'prom-client';

import { CONFIG, type Config } from '../platform/config/config.js';
import { LOGGER } from '../platform/logging/logger.js';
import { bringsMetricsToken } from '../protocol/metrics-token.js';
import { BoreServerTargets } from './bore-server-targets.js';

/** A request must have arrived in this time. */
const REQUEST_TIMEOUT_MS = 5_000;
/** Prometheus keeps one; a second Prometheus, and somebody who looks by hand. */
const CONNECTIONS_MAX = 32;

/**
 * Serves metrics on a port of their own (METRICS_PORT): kept from the public by the network, and of each process of a host by itself,
 * which a port that they share could not do. Open from before the API until the process ends, so that a drain can be watched.
 */
@Injectable()
export class MetricsListener implements OnApplicationShutdown {
  private server: http.Server | undefined;

  constructor(
    @Inject(CONFIG) private readonly config: Config,
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly targets: BoreServerTargets,
  ) {}

  /** Does nothing without METRICS_PORT. Fails when the port is taken. */
  async listen(): Promise<void> {
    const { METRICS_HOST: host, METRICS_PORT, NODE_APP_INSTANCE } = this.config;
    if (METRICS_PORT === undefined) return;
    const port = METRICS_PORT + NODE_APP_INSTANCE;
    const options = {
      requestTimeout: REQUEST_TIMEOUT_MS,
      headersTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: 1_000,
    };
    this.server = http.createServer(options, (request, response) => {
      this.answer(request, response).catch((err: unknown) => {
        this.logger.warn({ err }, 'metrics could not be shown');
        if (response.headersSent) response.destroy();
        else response.writeHead(503).end();
      });
    });
    this.server.maxConnections = CONNECTIONS_MAX;
    await once(this.server.listen(port, host), 'listening');
    this.logger.info({ host, metricsPort: port }, 'metrics have a listener of their own');
  }

  onApplicationShutdown(): void {
    this.server?.close();
    this.server?.closeAllConnections();
  }

  private async answer({ method, url, headers }: IncomingMessage, response: ServerResponse): Promise<void> {
    response.setHeader('cache-control', 'no-store');
    const { METRICS_TOKEN } = this.config;
    if (METRICS_TOKEN && !bringsMetricsToken(headers.authorization, METRICS_TOKEN.reveal())) {
      response.writeHead(401, { 'www-authenticate': 'Bearer' }).end();
      return;
    }
    switch (`${method} ${url?.split('?', 1)[0]}`) {
      case 'GET /metrics':
        response.setHeader('content-type', register.contentType).end(await register.metrics());
        return;
      case 'GET /metrics/bore-servers':
        response.setHeader('content-type', 'application/json').end(JSON.stringify(await this.targets.list()));
        return;
      default:
        response.writeHead(404).end();
    }
  }
}
