/** How each part of a cluster is started. */
import { rename, rm } from 'node:fs/promises';
import path from 'node:path';

import type { DatabaseAddress } from '../platform/database/migrations.js';
import type { ClusterPart, RunningPart } from './cluster-part.js';
import { type ClusterSettings, type Machine, MACHINES } from './cluster-settings.js';
import { diesWithUs } from './dies-with-us.js';
import { type EmbeddedPostgres, type EmbeddedPostgresOptions, startEmbeddedPostgres } from './embedded-postgres.js';
import { DATABASE, DATABASE_USER } from './first-database.js';
import { LogFile } from './log-file.js';
import { findNginx, nginxCommand } from './nginx.js';
import { promoteReplica, startPostgresReplica } from './postgres-replica.js';
import { ourProgram, Program } from './program.js';
import { backendEnvironment, serverEnvironment } from './program-environments.js';
import { prometheusCommand } from './prometheus.js';
import { redisCommand } from './redis.js';
import type { Secrets } from './start-secrets.js';
import { BINARIES_HOME, PROJECT_DIR } from './state-folders.js';

/** nginx keeps idle connections for 5 s: a backend that stops serves that long, and a moment. More only delays Ctrl-C. */
const DRAIN_SECONDS = 6;
/** Of each backend; with what its queue takes, three of them have half of PostgreSQL's 100 connections. */
const POOL_SIZE = 8;

export interface ClusterOptions {
  readonly settings: ClusterSettings;
  readonly secrets: Secrets;
  readonly stateDir: string;
  readonly logDir: string;
  /** What the programs inherit; ours wins. */
  readonly environment: NodeJS.ProcessEnv;
  /** What one program inherits besides, by its name. It wins over everything. */
  readonly environmentOf?: (name: string) => NodeJS.ProcessEnv;
  /** Of one address, as nginx allows it; default: as shipped. */
  readonly requestsPerSecond?: number;
  /** Stops starting. */
  readonly signal: AbortSignal;
  /** A line for the user. */
  readonly say: (text: string) => void;
}

/** Starts the programs, each at its place. What it starts is the caller's to stop. */
export class ClusterPrograms {
  constructor(private readonly options: ClusterOptions) {}

  /** As programs on this machine reach the API: through nginx. */
  get url(): string {
    return `http://${this.options.settings.bind}:${this.options.settings.apiPort}`;
  }

  /** Of the primary. */
  get database(): DatabaseAddress {
    const { settings, secrets } = this.options;
    return {
      host: '127.0.0.1',
      port: settings.databasePort,
      database: DATABASE,
      user: DATABASE_USER,
      password: secrets.DB_PASSWORD,
    };
  }

  startPrimary(): Promise<EmbeddedPostgres> {
    const { database } = this;
    return startEmbeddedPostgres({ ...this.postgresAt('postgres', database.port), ...database });
  }

  startReplica(): Promise<EmbeddedPostgres> {
    const { port, user, password } = this.database;
    const { settings, stateDir } = this.options;
    const dataDir = path.join(stateDir, 'postgres');
    return startPostgresReplica({
      ...this.postgresAt('postgres-replica', settings.replicaPort),
      primary: { port, user, password, dataDir },
      name: 'cluster_replica',
    });
  }

  /** Makes the replica, which runs, the primary: ended, it lies where the primary lay, whose files are gone. */
  async replacePrimary(replica: ClusterPart): Promise<void> {
    const { settings, stateDir } = this.options;
    await promoteReplica({ ...this.database, port: settings.replicaPort });
    await replica.stop();
    const [from, to] = [path.join(stateDir, 'postgres-replica'), path.join(stateDir, 'postgres')];
    await rm(to, { recursive: true });
    await rename(from, to);
  }

  private postgresAt(name: string, port: number): Omit<EmbeddedPostgresOptions, 'user' | 'password'> {
    const { stateDir, signal } = this.options;
    const log = this.log(name);
    const onLine = (line: string): void => log.line(line);
    return { dataDir: path.join(stateDir, name), binariesHome: BINARIES_HOME, port, onLine, signal, diesWithUs: true };
  }

  async startRedis(): Promise<RunningPart> {
    const { settings, secrets, stateDir, signal } = this.options;
    const place = { folder: path.join(stateDir, 'redis'), port: settings.redisPort, password: secrets.REDIS_PASSWORD };
    const redis = this.runForeign('redis', await redisCommand(place));
    return ready(redis, redis.listens('127.0.0.1', place.port, signal));
  }

  async startNginx(): Promise<RunningPart> {
    const { settings, stateDir, environment, requestsPerSecond, signal } = this.options;
    const { bind, apiPort, controlPort, machines } = settings;
    const installation = await findNginx(environment['PATH']);
    const command = await nginxCommand(installation, {
      folder: path.join(stateDir, 'nginx'),
      address: bind,
      controlPort,
      servers: machines,
      api: { port: apiPort, requestsPerSecond },
    });
    const nginx = this.runForeign('nginx', command, { PATH: installation.path });
    return ready(nginx, nginx.listens(bind, apiPort, signal));
  }

  async startPrometheus(): Promise<RunningPart> {
    const { settings, stateDir, signal } = this.options;
    const { bind, prometheusPort, machines, apiPort, adminPort } = settings;
    const command = await prometheusCommand({
      folder: path.join(stateDir, 'prometheus'),
      address: bind,
      port: prometheusPort,
      backends: machines.map(({ address }) => `${address}:${apiPort}`),
      servers: machines.map(({ address }) => `${address}:${adminPort}`),
    });
    const prometheus = this.runForeign('prometheus', command);
    return ready(prometheus, prometheus.ready(`http://${bind}:${prometheusPort}/-/ready`, signal));
  }

  startBackend({ address }: Machine, name: string): Promise<RunningPart> {
    const { settings, secrets, signal } = this.options;
    const { host, apiPort, controlPort, replicaPort, redisPort, bind } = settings;
    const backend = this.runOurs(name, 'main.js', {
      DB_POOL_SIZE: String(POOL_SIZE),
      SHUTDOWN_DRAIN_SECONDS: String(DRAIN_SECONDS),
      ...this.options.environment,
      ...backendEnvironment({
        secrets,
        database: this.database,
        address,
        port: apiPort,
        publicHost: host,
        controlPort,
      }),
      // Prometheus comes to the port of the API here, and knows no token
      METRICS_PORT: undefined,
      METRICS_TOKEN: undefined,
      BACKEND_INSTANCES: String(MACHINES),
      DB_REPLICA_HOSTS: `127.0.0.1:${replicaPort}`,
      REDIS_ENABLED: 'true',
      REDIS_MODE: 'standalone',
      REDIS_HOST: '127.0.0.1',
      REDIS_PORT: String(redisPort),
      REDIS_PASSWORD: secrets.REDIS_PASSWORD,
      REDIS_TLS: 'false',
      TRUST_PROXY: bind,
    });
    return ready(backend, backend.ready(`http://${address}:${apiPort}/health/ready`, signal));
  }

  startServer({ name: id, address, portRange }: Machine, name: string): Promise<RunningPart> {
    const { settings, secrets, stateDir, environment, signal } = this.options;
    const { host, bind, controlPort, adminPort, peerPort } = settings;
    const server = this.runOurs(name, 'bore-server/main.js', {
      ...environment,
      ...serverEnvironment({
        secrets,
        id,
        backendUrl: this.url,
        publicHost: host,
        address,
        controlPort,
        portRange,
        adminAddress: address,
        adminPort,
        dataDir: path.join(stateDir, name),
      }),
      BORE_METRICS_TOKEN: undefined,
      BORE_PEER_PORT: String(peerPort),
      BORE_PEER_HOST: address,
      BORE_PEER_BIND_ADDR: address,
      BORE_PROXY_PROTOCOL_FROM: `${bind}/32`,
    });
    return ready(server, server.ready(`http://${address}:${adminPort}/ready`, signal));
  }

  private runOurs(name: string, script: string, env: NodeJS.ProcessEnv): Program {
    const { say } = this.options;
    const onError = (text: string): void => say(`${name}: ${text}`);
    const drainMs = Number(env['SHUTDOWN_DRAIN_SECONDS'] ?? 0) * 1000;
    return new Program({
      name,
      command: ourProgram(script),
      cwd: PROJECT_DIR,
      env: { ...env, ...this.options.environmentOf?.(name) },
      log: this.log(name),
      onError,
      drainMs,
    });
  }

  /** Somebody else's program: it hears none of our secrets, and does not stay when we are gone. */
  private runForeign(name: string, command: [string, ...string[]], env: NodeJS.ProcessEnv = {}): Program {
    const { environment, stateDir } = this.options;
    return new Program({
      name,
      command: diesWithUs('TERM', command),
      cwd: stateDir,
      env: { PATH: environment['PATH'], ...env },
      log: this.log(name),
    });
  }

  private log(name: string): LogFile {
    return new LogFile(path.join(this.options.logDir, `${name}.log`));
  }
}

/** A program that is ready; one that does not get so far is ended. */
async function ready(program: Program, becoming: Promise<void>): Promise<RunningPart> {
  try {
    await becoming;
    return program;
  } catch (error) {
    await program.stop();
    throw error;
  }
}
