/**
 * The whole platform on one machine: PostgreSQL, one backend, one bore-server, started in this order and stopped in the
 * opposite one.
 */
import { once } from 'node:events';
import path from 'node:path';

import type { DatabaseAddress } from '../platform/database/migrations.js';
import { type EmbeddedPostgres, startEmbeddedPostgres } from './embedded-postgres.js';
import { DATABASE, DATABASE_USER, prepareDatabase } from './first-database.js';
import { LogFile } from './log-file.js';
import { ourProgram, Program } from './program.js';
import { backendEnvironment, serverEnvironment } from './program-environments.js';
import type { Secrets } from './start-secrets.js';
import type { StartSettings } from './start-settings.js';
import { BINARIES_HOME, PROJECT_DIR } from './state-folders.js';

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
  private readonly programs: Program[] = [];
  private readonly endings: Promise<string>[] = [];
  private readonly options: PlatformOptions;

  constructor(options: PlatformOptions) {
    this.options = options;
  }

  /** Resolves when everything is ready; after a failure, `stop` ends what had been started. */
  async start(): Promise<void> {
    const { settings, secrets, stateDir, signal } = this.options;
    const { bind, host, localHost, apiPort, controlPort, portRange, adminPort } = settings;
    const database = await this.startPostgres();
    signal.throwIfAborted();
    await prepareDatabase(database);
    signal.throwIfAborted();
    const backend = this.run('backend', 'main.js', {
      ...backendEnvironment({ secrets, database, address: bind, port: apiPort, publicHost: host, controlPort }),
      // no load balancer looks at /health/ready here
      SHUTDOWN_DRAIN_SECONDS: '0',
    });
    const backendUrl = `http://${localHost}:${apiPort}`;
    await backend.ready(`${backendUrl}/health/ready`, signal);
    const server = this.run(
      'bore-server',
      'bore-server/main.js',
      serverEnvironment({
        secrets,
        id: 'local',
        backendUrl,
        publicHost: host,
        address: bind,
        controlPort,
        portRange,
        adminAddress: '127.0.0.1',
        adminPort,
        dataDir: path.join(stateDir, 'bore-server'),
      }),
    );
    await server.ready(`http://127.0.0.1:${adminPort}/ready`, signal);
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
    const server = { host: '127.0.0.1', port: secrets.DB_PORT, user: DATABASE_USER, password: secrets.DB_PASSWORD };
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
    return { ...server, database: DATABASE };
  }

  private run(name: string, script: string, env: NodeJS.ProcessEnv): Program {
    const { environment, logDir, say } = this.options;
    const program = new Program({
      name,
      command: ourProgram(script),
      cwd: PROJECT_DIR,
      env: { ...environment, ...env },
      log: new LogFile(path.join(logDir, `${name}.log`)),
      onError: (text) => say(`${name}: ${text}`),
    });
    this.programs.push(program);
    this.endings.push(program.ended);
    return program;
  }
}
