#!/usr/bin/env node
import { createJsonLines } from '../logging/json-lines.js';
import { buildVersion } from '../protocol/build-version.js';
import { randomUuid } from '../protocol/challenge.js';
import { startTracing, type Tracing } from '../tracing/start-tracing.js';
import { TracingSettingsError } from '../tracing/tracing-settings.js';
import { AdminSurface } from './admin-surface.js';
import type { Authorizer } from './authorizer.js';
import { BackendAuthorizer } from './backend-authorizer.js';
import { BoreServer } from './bore-server.js';
import { ControlListener } from './control-listener.js';
import { withinDescriptors } from './descriptors.js';
import { Domain } from './domain.js';
import { closing } from './fences.js';
import type { FrameConnection } from './frame-connection.js';
import { type Greeting } from './handshake.js';
import { EXPIRY_CHECK_MS, EXPIRY_GRACE_MS } from './limits.js';
import { listening } from './listening.js';
import { Metrics } from './metrics.js';
import { Networks } from './networks.js';
import { type Options, OptionsError, readOptions } from './options.js';
import { openPlane } from './plane.js';
import { registrationOf } from './registration.js';
import { Reporter } from './reporter.js';
import { SharedSecretAuthorizer } from './shared-secret-authorizer.js';

/** A disk that takes longer to keep what is not reported yet does not keep a process that is told to end now. */
const SAVE_TIMEOUT_MS = 1_000;

async function start(options: Options, tracing: Tracing | undefined): Promise<void> {
  const logger = createJsonLines('bore-server', options.logLevel, tracing?.idsOfSpan);
  tracing?.reportTo(logger);
  const metrics = new Metrics();
  const { peerPort, peerBindAddr } = options;
  const wanted = peerPort === undefined ? { ...options.limits, maxForwarded: 0 } : options.limits;
  const limits = withinDescriptors(wanted, logger);
  const trusted = options.proxyProtocolFrom.length > 0 ? new Networks(options.proxyProtocolFrom) : undefined;
  const plane = options.access.backend && (await openPlane(options, options.access.backend, metrics, logger));
  let reporter: Reporter | undefined;
  let ownDrain = false;
  let stopping = false;

  const server = new BoreServer({
    bindTunnels: options.bindTunnels,
    limits,
    metrics,
    logger,
    trusted,
    book: plane?.book,
    lastShedAt: () => control.lastShedAt,
    onSessionEnd: (ended) => reporter?.sessionEnded(ended),
    onFence: (fence) => plane?.grants.fence(fence),
    onSettings: (tunnelId, settings) => plane?.grants.updateSettings(tunnelId, settings),
  });
  const authorizer: Authorizer = plane
    ? new BackendAuthorizer(plane.client, plane.grants, logger, {
        identity: plane.identity,
        range: options.portRange,
        isRegistered: () => reporter?.isRegistered ?? false,
        hasPeers: () => domain !== undefined && plane.peers.count > 0,
        onRefused: ({ code }) => (code === 'SERVER_SUPERSEDED' ? superseded() : reporter?.registerAgain()),
      })
    : new SharedSecretAuthorizer(options.access.secret ?? '', options.portRange, (port) => server.isPortTaken(port));
  const admin = new AdminSurface(
    plane?.identity.apiKeys ?? [],
    metrics,
    options.metricsToken,
    {
      isReady: () => !stopping && !ownDrain && (reporter?.isRegistered ?? true),
      closeTunnel: (tunnelId, reason) => server.fence(closing(tunnelId, reason)),
      fenceTunnel: (fence) => server.fence(fence),
      updateTunnel: (tunnelId, settings) => server.updateTunnel(tunnelId, settings),
      setDraining: (draining) => {
        ownDrain = draining;
        reporter?.setDraining(draining);
      },
    },
    logger,
  );
  const serve = (greeting: Greeting, address: string, connection: FrameConnection): Promise<void> =>
    server.onGreeting(greeting, address, connection, authorizer);
  const { portRange: range } = options;
  const domain =
    plane && peerPort !== undefined
      ? new Domain({
          apiKeys: plane.identity.apiKeys,
          peers: plane.peers,
          limits,
          metrics,
          logger,
          isOurs: (port) => (port >= range.min && port <= range.max) || server.isPortTaken(port),
          serve,
          takeOver: (greeting, address, connection) => control.takeOver(greeting, address, connection),
        })
      : undefined;
  const control: ControlListener = new ControlListener({
    limits,
    metrics,
    logger,
    trusted,
    onGreeting: domain?.onGreeting ?? serve,
    onTakenOver: serve,
    hasSessionFrom: (source) => server.hasSessionFrom(source),
  });

  const ports = range.max - range.min + 1;
  metrics.observe(() => ({
    ...server.figures,
    sessionsMax: Math.min(ports, reporter?.maxSessions ?? ports),
    handshakesOpen: control.handshakesOpen,
    draining: stopping || ownDrain || (reporter?.isDraining ?? false),
  }));
  if (plane)
    metrics.observePlane(() => {
      const { count, ageSeconds } = plane.book.waiting;
      const { up, answerAgeSeconds } = reporter?.contact ?? { up: false, answerAgeSeconds: 0 };
      return { up, answerAgeSeconds, reportAgeSeconds: ageSeconds, reportsPending: count };
    });

  /** First: lets streams finish. Again, or when told so: at once. */
  const stop = async (exitCode: number, graceMs: number): Promise<void> => {
    if (stopping) {
      logger.warn('stopped without waiting for streams');
      server.stop();
      setTimeout(() => process.exit(1), SAVE_TIMEOUT_MS);
      await plane?.stateFile?.save();
      process.exit(exitCode === 0 ? 0 : 1);
    }
    stopping = true;
    logger.info({ graceMs }, 'draining');
    reporter?.setDraining(true);
    await Promise.all([server.drain(graceMs), domain?.drain(graceMs)]);
    control.close();
    server.stop();
    domain?.stop();
    await reporter?.stop();
    await plane?.stateFile?.save();
    admin.close();
    await tracing?.stop();
    logger.info('stopped');
    process.exit(exitCode);
  };
  const superseded = (): void => {
    if (stopping) return;
    logger.fatal({ serverId: plane?.identity.serverId }, 'another process has registered under this server id');
    void stop(1, 0);
  };

  const adminPort = await listening(admin.listen(options.adminPort, options.adminBindAddr), options.adminPort);
  const controlPort = await listening(control.listen(options.controlPort, options.bindAddr), options.controlPort);
  const boundPeerPort = domain && (await listening(domain.listen(peerPort ?? 0, peerBindAddr), peerPort ?? 0));
  if (plane) {
    const { client, book, grants, stateFile, identity, peers } = plane;
    reporter = new Reporter(
      client,
      registrationOf(options, identity, { controlPort, adminPort, peerPort: boundPeerPort }),
      {
        heartbeat: () => server.heartbeat(grants.kept().map(({ grant }) => grant)),
        report: async () => {
          const isNew = book.isSettled;
          const report = book.report();
          // kept before it is sent: a process that is killed must not make another report of the same usage
          if (report && isNew) await stateFile?.save();
          else if (report) stateFile?.saveSoon();
          return report;
        },
        peersVersion: () => (domain ? peers.version : undefined),
        onPeers: (directory) => peers.update(directory),
        notReported: () => stateFile?.saveSoon(),
        acknowledged: (sequence) => {
          book.acknowledge(sequence);
          stateFile?.saveSoon();
          if (book.isPressing) reporter?.nudge();
        },
        obey: (orders, sessions) => {
          const ended = new Set([...orders.close, ...orders.fences].map(({ tunnelId }) => tunnelId));
          grants.confirm(new Set(sessions.flatMap(({ tunnelId }) => (ended.has(tunnelId) ? [] : [tunnelId]))));
          server.obey(orders);
          const level = orders.logLevel ?? options.logLevel;
          if (logger.level !== level) logger.level = level;
        },
        superseded,
      },
      logger,
    );
    book.onPressing = () => reporter?.nudge();
    reporter.start();
    setInterval(() => server.endExpired(Date.now() - EXPIRY_GRACE_MS), EXPIRY_CHECK_MS).unref();
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    process.on(signal, () => void stop(0, limits.drainSeconds * 1000));
  logger.info({ controlPort, adminPort, peerPort: boundPeerPort, portRange: options.portRange }, 'listening');
}

try {
  const options = readOptions(process.argv.slice(2));
  const service = {
    name: 'bore-server',
    version: buildVersion(),
    instanceId: options.access.backend?.serverId ?? randomUuid(),
  };
  await start(options, await startTracing(process.env, service));
} catch (error) {
  if (!(error instanceof OptionsError) && !(error instanceof TracingSettingsError)) throw error;
  process.stderr.write(`bore-server could not start: ${error.message}\n`);
  process.exit(1);
}
