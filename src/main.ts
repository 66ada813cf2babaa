import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { loadEnvFile } from 'node:process';

import { NestFactory } from '@nestjs/core';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import type { Logger } from 'pino';

import { AppModule } from './app.module.js';
import { hasInternalKey, refuseStrangers } from './auth/internal-api.js';
import { EventSignal } from './events/event-signal.js';
import { HttpMetrics } from './metrics/http-metrics.js';
import { guardMetrics } from './metrics/metrics-access.js';
import { MetricsListener } from './metrics/metrics-listener.js';
import { serveOpenApi } from './openapi.js';
import { CONFIG, type Config, ConfigError, readConfig } from './platform/config/config.js';
import { refuseOtherMethods } from './platform/http/allowed-methods.js';
import { answerNotModified } from './platform/http/etag.js';
import { createHttpServer, installHooks } from './platform/http/http-server.js';
import { Lifecycle } from './platform/http/lifecycle.js';
import { closeQuietly } from './platform/http/quiet-close.js';
import { keepRequestContext } from './platform/http/request-context.js';
import { sendSecurityHeaders } from './platform/http/security-headers.js';
import { noticeUntrustedProxy } from './platform/http/trusted-proxy.js';
import { endUnusedConnections } from './platform/http/unused-connections.js';
import { InstanceLock } from './platform/instance/instance-lock.js';
import { createLogger, LOGGER, NestLogger } from './platform/logging/logger.js';
import { Counters } from './platform/rate-limits/counters.js';
import { limitDocs } from './platform/rate-limits/docs-limit.js';
import { traceRequests } from './platform/tracing/http-spans.js';
import { buildVersion } from './protocol/build-version.js';
import { startTracing, type Tracing } from './tracing/start-tracing.js';

/** Requests under way get this long after the drain; then the process goes all the same. */
const CLOSE_TIMEOUT_MS = 10_000;

async function start(): Promise<void> {
  const config = readConfig(process.env);
  // before whoever is traced is made
  const tracing = await startTracing(process.env, {
    name: 'bore-backend',
    version: buildVersion(),
    instanceId: randomUUID(),
  });
  const adapter = createHttpServer(config.TRUST_PROXY);
  const bootLogger = createLogger(config.LOG_LEVEL);
  const instance = await InstanceLock.take(config, bootLogger);
  const app = await NestFactory.create<NestFastifyApplication>(AppModule, adapter, {
    logger: new NestLogger(bootLogger),
    abortOnError: false,
    // Fastify's own JSON parser stays; Nest would add one for HTML forms
    bodyParser: false,
  });
  const logger = app.get<Logger>(LOGGER);
  // whose level can be changed
  app.useLogger(new NestLogger(logger));
  tracing?.reportTo(logger);
  const lifecycle = app.get(Lifecycle);
  const server = adapter.getInstance();
  closeQuietly(server);
  endUnusedConnections(server);
  traceRequests(server, ({ headers }) => hasInternalKey(headers, config.INTERNAL_API_KEY));
  installHooks(server, logger, lifecycle);
  keepRequestContext(server);
  await sendSecurityHeaders(app);
  noticeUntrustedProxy(server, logger);
  refuseOtherMethods(server);
  answerNotModified(server);
  refuseStrangers(server, config.INTERNAL_API_KEY);
  guardMetrics(server, config);
  limitDocs(server, app.get(Counters, { strict: false }), config.RATE_LIMIT_PER_MINUTE);
  app.get(HttpMetrics, { strict: false }).install(server);
  app.get(EventSignal, { strict: false }).install(server);

  app.setGlobalPrefix('api/v1', {
    exclude: ['health', 'health/live', 'health/ready', 'metrics', 'metrics/bore-servers'],
  });
  const { ALLOWED_ORIGINS } = app.get<Config>(CONFIG);
  if (ALLOWED_ORIGINS.length > 0)
    app.enableCors({
      origin: [...ALLOWED_ORIGINS],
      methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
      exposedHeaders: ['etag', 'idempotency-replayed', 'ratelimit', 'ratelimit-policy', 'retry-after', 'x-request-id'],
      maxAge: 600,
    });
  serveOpenApi(app);

  stopOnSignals(app, lifecycle, instance, tracing, logger, config.SHUTDOWN_DRAIN_SECONDS);
  await app.get(MetricsListener, { strict: false }).listen();
  await app.listen(config.PORT, config.HOST);
  const address = app.getHttpServer().address();
  logger.info({ host: config.HOST, port: typeof address === 'object' ? address?.port : undefined }, 'listening');
  // to a process manager that waits for it before it stops the next one (PM2: wait_ready)
  process.send?.('ready');
}

/**
 * First signal: say no in /health/ready, wait for load balancers to see it, finish what is under way. Second: now. The same,
 * with an error, when another backend has taken this one's place.
 */
function stopOnSignals(
  app: NestFastifyApplication,
  lifecycle: Lifecycle,
  instance: InstanceLock,
  tracing: Tracing | undefined,
  logger: Logger,
  drainSeconds: number,
): void {
  const stop = async (exitCode: number): Promise<void> => {
    lifecycle.drain();
    // the next one may begin: whoever looks at /health/ready goes there already
    await instance.release();
    await new Promise((resolve) => setTimeout(resolve, drainSeconds * 1000));
    logger.info('closing');
    const timer = setTimeout(() => {
      logger.error('requests or connections did not end in time');
      process.exit(1);
    }, CLOSE_TIMEOUT_MS).unref();
    await app.close();
    clearTimeout(timer);
    await tracing?.stop();
    logger.info('stopped');
    process.exit(exitCode);
  };
  const stopOrDie = (exitCode: number): void => {
    stop(exitCode).catch((err: unknown) => {
      logger.fatal({ err }, 'stopping failed');
      process.exit(1);
    });
  };
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (lifecycle.draining) process.exit(1);
      logger.info({ signal }, 'draining');
      stopOrDie(0);
    });
  }
  void instance.keep(({ message }) => {
    if (lifecycle.draining) return;
    logger.fatal(`stopping: ${message}`);
    stopOrDie(1);
  });
}

/** One sentence for the operator; Prisma puts its reason last. */
function reasonOf(error: unknown): string {
  if (error instanceof ConfigError) return error.message;
  return error instanceof Error ? (error.message.trim().split('\n').at(-1) ?? error.name) : String(error);
}

try {
  if (existsSync('.env')) loadEnvFile('.env');
  await start();
} catch (error) {
  process.stderr.write(`bore-backend could not start: ${reasonOf(error)}\n`);
  process.exit(1);
}
