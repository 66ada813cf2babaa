#!/usr/bin/env node
import { pino, type Logger } from 'pino';

import { randomUuid } from '../protocol/challenge.js';
import { AdminSurface } from './admin-surface.js';
import type { Authorizer } from './authorizer.js';
import { BackendAuthorizer } from './backend-authorizer.js';
import { BackendClient } from './backend-client.js';
import { BoreServer } from './bore-server.js';
import { ControlListener } from './control-listener.js';
import { Metrics } from './metrics.js';
import { type BackendMode, type Options, OptionsError, readOptions } from './options.js';
import { Reporter } from './reporter.js';
import { SharedSecretAuthorizer } from './shared-secret-authorizer.js';

async function start(options: Options): Promise<void> {
  const logger = pino({
    level: options.logLevel,
    base: { service: 'bore-server', pid: process.pid },
    formatters: { level: (label) => ({ level: label }) },
    timestamp: pino.stdTimeFunctions.isoTime,
  });
  const metrics = new Metrics();
  const backend = 'backend' in options.access ? options.access.backend : undefined;
  let reporter: Reporter | undefined;
  let stopping = false;

  const server = new BoreServer(options.bindTunnels, metrics, logger, (ended) => reporter?.sessionEnded(ended));
  const admin = new AdminSurface(backend?.apiKeys ?? [], metrics, {
    isReady: () => !stopping && (reporter?.isRegistered ?? true),
    closeTunnel: (tunnelId, reason) => server.closeTunnel(tunnelId, reason),
  });
  const control = new ControlListener(metrics, logger, (greeting, connection) =>
    server.onGreeting(greeting, connection, authorizer),
  );

  const stop = async (exitCode: number): Promise<void> => {
    if (stopping) process.exit(1);
    stopping = true;
    control.close();
    server.stop('server_stopping', 'server is stopping');
    await reporter?.stop();
    admin.close();
    logger.info('stopped');
    process.exit(exitCode);
  };

  let authorizer: Authorizer;
  const controlPort = await listening(control.listen(options.controlPort, options.bindAddr), options.controlPort);
  const adminPort = await listening(admin.listen(options.adminPort, options.adminBindAddr), options.adminPort);
  if (backend) {
    const identity = { serverId: backend.serverId, instanceId: randomUuid() };
    const client = new BackendClient(backend.url, backend.apiKeys[0] ?? '');
    const superseded = (): void => {
      logger.fatal({ serverId: identity.serverId }, 'another process has registered under this server id');
      void stop(1);
    };
    reporter = newReporter(
      options,
      backend,
      identity.instanceId,
      { controlPort, adminPort },
      client,
      server,
      superseded,
      logger,
    );
    authorizer = new BackendAuthorizer(client, identity, options.portRange, logger, ({ code }) =>
      code === 'SERVER_SUPERSEDED' ? superseded() : reporter?.registerAgain(),
    );
    reporter.start();
  } else if ('secret' in options.access) {
    authorizer = new SharedSecretAuthorizer(options.access.secret, options.portRange, (port) =>
      server.isPortTaken(port),
    );
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void stop(0));
  logger.info({ controlPort, adminPort, portRange: options.portRange }, 'listening');
}

function newReporter(
  options: Options,
  backend: BackendMode,
  instanceId: string,
  ports: { controlPort: number; adminPort: number },
  client: BackendClient,
  server: BoreServer,
  superseded: () => void,
  logger: Logger,
): Reporter {
  const { host, location, maxTunnels, maxBandwidthMbps, portRange } = options;
  const adminHost = host ?? (options.adminBindAddr === '0.0.0.0' ? '127.0.0.1' : options.adminBindAddr);
  const registration = {
    serverId: backend.serverId,
    instanceId,
    controlPort: ports.controlPort,
    adminUrl: options.adminUrl ?? `http://${adminHost.includes(':') ? `[${adminHost}]` : adminHost}:${ports.adminPort}`,
    portRange,
    ...(host !== undefined && { host }),
    ...(location !== undefined && { location }),
    ...(maxTunnels !== undefined && { maxTunnels }),
    ...(maxBandwidthMbps !== undefined && { maxBandwidthMbps }),
  };
  return new Reporter(
    client,
    registration,
    {
      sessions: () => server.sessionRefs(),
      load: () => server.load(),
      obey: (orders) => server.obey(orders),
      superseded,
    },
    logger,
  );
}

/** @throws OptionsError when the port is taken or not ours to take */
async function listening(port: Promise<number>, wanted: number): Promise<number> {
  try {
    return await port;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'EADDRINUSE') throw new OptionsError(`port ${wanted} is taken by another process`);
    if (code === 'EACCES') throw new OptionsError(`port ${wanted} may not be opened by this user`);
    throw error;
  }
}

try {
  await start(readOptions(process.argv.slice(2)));
} catch (error) {
  if (!(error instanceof OptionsError)) throw error;
  process.stderr.write(`bore-server could not start: ${error.message}\n`);
  process.exit(1);
}
