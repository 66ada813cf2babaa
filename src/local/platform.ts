/**
 * The whole platform on one machine: PostgreSQL, one backend, one bore-server, started in this order and stopped in the
 * opposite one.
 */
import { once } from 'node:events';
import path from 'node:path';

import pg from 'pg';

import { type DatabaseAddress, migrateUp } from '../platform/database/migrations.js';
import { type EmbeddedPostgres, startEmbeddedPostgres } from './embedded-postgres.js';
import { LogFile } from './log-file.js';
import { NodeProgram } from './node-program.js';
import type { Secrets } from './start-secrets.js';
import type { StartSettings } from './start-settings.js';
import { BINARIES_HOME, PROJECT_DIR } from './state-folders.js';

const DATABASE = 'bore_db';
const USER = 'bore_user';

interface PlatformOptions {
  readonly settings: StartSettings;
  readonly secrets: Secrets;
  readonly stateDir: string;
  readonly logDir: string;
  /** What the programs inherit; ours wins. */
  readonly environment: NodeJS.ProcessEnv;
  /** Stops starting. */
  readonly signal: AbortSignal;
  /** A line for the user. */
  readonly say: (text: string) => void;
}

/** What runs, for as long as it does. */
export class Platform {
  private postgres: EmbeddedPostgres | undefined;
  private readonly programs: NodeProgram[] = [];
  private readonly endings: Promise<string>[] = [];
  private readonly options: PlatformOptions;

  constructor(options: PlatformOptions) {
    this.options = options;
  }

  /** Resolves when everything is ready; after a failure, `stop` ends what had been started. */
  async start(): Promise<void> {
    const { settings, signal } = this.options;
    const address = await this.startPostgres();
    signal.throwIfAborted();
    await migrateUp(address);
    signal.throwIfAborted();
    const backend = this.run('backend', 'main.js', this.backendEnvironment(address));
    await backend.ready(`http://${settings.localHost}:${settings.apiPort}/health/ready`, signal);
    const server = this.run('bore-server', 'bore-server/main.js', this.serverEnvironment());
    await server.ready(`http://127.0.0.1:${settings.adminPort}/ready`, signal);
  }

  /** Resolves when one of the programs has ended, with a sentence that says which and why. */
  ended(): Promise<string> {
    return Promise.race(this.endings);
  }

  /** Ends everything in order, each within its own limit. */
  async stop(): Promise<void> {
    for (const program of this.programs.toReversed()) await program.stop();
    await this.postgres?.stop();
  }

  /** Ends everything at once. */
  kill(): void {
    for (const program of this.programs) program.kill();
    // immediate shutdown: the next start replays the log
    this.postgres?.process.kill('SIGQUIT');
  }

  private async startPostgres(): Promise<DatabaseAddress> {
    const { secrets, stateDir, logDir, signal } = this.options;
    const server = { host: '127.0.0.1', port: secrets.DB_PORT, user: USER, password: secrets.DB_PASSWORD };
    const log = new LogFile(path.join(logDir, 'postgres.log'));
    let lastLine = '';
    const onLine = (line: string): void => {
      log.line(line);
      lastLine = line;
    };
    const postgres = await startEmbeddedPostgres({
      ...server,
      dataDir: path.join(stateDir, 'postgres'),
      binariesHome: BINARIES_HOME,
      onLine,
      signal,
    });
    this.postgres = postgres;
    this.endings.push(once(postgres.process, 'close').then(() => `PostgreSQL ended: ${lastLine}`));
    await createDatabase({ ...server, database: 'postgres' });
    return { ...server, database: DATABASE };
  }

  private run(name: string, script: string, env: NodeJS.ProcessEnv): NodeProgram {
    const { environment, logDir, say } = this.options;
    const program = new NodeProgram({
      name,
      script,
      cwd: PROJECT_DIR,
      env: { ...environment, ...env },
      log: new LogFile(path.join(logDir, `${name}.log`)),
      onError: (text) => say(`${name}: ${text}`),
    });
    this.programs.push(program);
    this.endings.push(program.ended);
    return program;
  }

  private backendEnvironment(database: DatabaseAddress): NodeJS.ProcessEnv {
    const { settings, secrets } = this.options;
    return {
      JWT_SECRET: secrets.JWT_SECRET,
      INTERNAL_API_KEY: secrets.INTERNAL_API_KEY,
      TUNNEL_KEY_SECRET: secrets.TUNNEL_KEY_SECRET,
      ADMIN_EMAIL: secrets.ADMIN_EMAIL,
      ADMIN_PASSWORD: secrets.ADMIN_PASSWORD,
      HOST: settings.bind,
      PORT: String(settings.apiPort),
      DB_HOST: database.host,
      DB_PORT: String(database.port),
      DB_NAME: database.database,
      DB_USER: database.user,
      DB_PASSWORD: database.password,
      BORE_SERVER_HOST: settings.host,
      BORE_SERVER_PORT: String(settings.controlPort),
      // no load balancer looks at /health/ready here
      SHUTDOWN_DRAIN_SECONDS: '0',
    };
  }

  private serverEnvironment(): NodeJS.ProcessEnv {
    const { settings, secrets } = this.options;
    return {
      BORE_BACKEND_URL: `http://${settings.localHost}:${settings.apiPort}`,
      BORE_BACKEND_API_KEY: secrets.INTERNAL_API_KEY,
      BORE_SERVER_ID: 'local',
      BORE_HOST: settings.host,
      BORE_BIND_ADDR: settings.bind,
      BORE_BIND_TUNNELS: settings.bind,
      BORE_CONTROL_PORT: String(settings.controlPort),
      BORE_PORT_RANGE: `${settings.portRange.min}:${settings.portRange.max}`,
      BORE_ADMIN_PORT: String(settings.adminPort),
      BORE_ADMIN_BIND_ADDR: '127.0.0.1',
      BORE_ADMIN_URL: `http://127.0.0.1:${settings.adminPort}`,
      // of a stand-alone server
      BORE_SECRET: undefined,
      BORE_DATA_DIR: path.join(this.options.stateDir, 'bore-server'),
      // whoever pressed Ctrl-C waits for it
      BORE_DRAIN_SECONDS: '2',
    };
  }
}

async function createDatabase(address: DatabaseAddress): Promise<void> {
  const client = new pg.Client({ ...address, application_name: 'bore-start' });
  await client.connect();
  try {
    const { rowCount } = await client.query('SELECT FROM pg_database WHERE datname = $1', [DATABASE]);
    if (rowCount === 0) await client.query(`CREATE DATABASE ${DATABASE}`);
  } finally {
    await client.end();
  }
}
