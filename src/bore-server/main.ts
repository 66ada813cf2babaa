#!/usr/bin/env node
import { pino } from 'pino';

import { randomUuid } from '../protocol/challenge.js';
import type { RegisterRequest } from '../protocol/plane-api.js';
import { AdminSurface } from './admin-surface.js';
import { BackendAuthorizer } from './backend-authorizer.js';
import { BackendClient } from './backend-client.js';
import { BoreServer } from './bore-server.js';
import { ControlListener } from './control-listener.js';
import { Metrics } from './metrics.js';
import { type Options, OptionsError, readOptions } from './options.js';
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
  const { backend, secret } = options.access;
  const identity = backend && { ...backend, instanceId: randomUuid() };
  const client = identity && new BackendClient(identity.url, identity.apiKeys[0] ?? '');
  let reporter: Reporter | undefined;
  let stopping = false;

  const server = new BoreServer(options.bindTunnels, metrics, logger, (ended) => reporter?.sessionEnded(ended));
  const authorizer =
    client && identity
      ? new BackendAuthorizer(client, identity, options.portRange, logger, ({ code }) =>
          code === 'SERVER_SUPERSEDED' ? superseded() : reporter?.registerAgain(),
        )
      : new SharedSecretAuthorizer(secret ?? '', options.portRange, (port) => server.isPortTaken(port));
  const admin = new AdminSurface(identity?.apiKeys ?? [], metrics, {
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
  const superseded = (): void => {
    if (stopping) return;
    logger.fatal({ serverId: identity?.serverId }, 'another process has registered under this server id');
    void stop(1);
  };

  const adminPort = await listening(admin.listen(options.adminPort, options.adminBindAddr), options.adminPort);
  const controlPort = await listening(control.listen(options.controlPort, options.bindAddr), options.controlPort);
  if (client && identity) {
    const registration = registrationOf(options, identity, { controlPort, adminPort });
    reporter = new Reporter(
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
    reporter.start();
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void stop(0));
  logger.info({ controlPort, adminPort, portRange: options.portRange }, 'listening');
}

/** How the server presents itself; what the operator did not set is left to the control plane. */
function registrationOf(
  { host, location, maxTunnels, maxBandwidthMbps, portRange, adminUrl, adminBindAddr }: Options,
  { serverId, instanceId }: { serverId: string; instanceId: string },
  { controlPort, adminPort }: { controlPort: number; adminPort: number },
): RegisterRequest {
  const adminHost = host ?? (adminBindAddr === '0.0.0.0' ? '127.0.0.1' : adminBindAddr);
  return {
    serverId,
    instanceId,
    controlPort,
    adminUrl: adminUrl ?? `http://${adminHost.includes(':') ? `[${adminHost}]` : adminHost}:${adminPort}`,
    portRange,
    ...(host !== undefined && { host }),
    ...(location !== undefined && { location }),
    ...(maxTunnels !== undefined && { maxTunnels }),
    ...(maxBandwidthMbps !== undefined && { maxBandwidthMbps }),
  };
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
