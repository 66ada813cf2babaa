import { randomUUID } from 'node:crypto';

import { Api } from './api.js';
import { type Backend, startBackend } from './backend.js';
import { type BoreServerProcess, newDataDir, startBoreServer } from './bore-server.js';
import { createDatabase, type TestDatabase } from './database.js';

const PASSWORD = 'correct horse battery';

/** A tunnel just opened, as far as tests need it. */
export interface OpenedTunnel {
  readonly id: string;
  readonly token: string;
  readonly port: number;
  readonly command: string;
}

interface PlatformOptions {
  /** Loopback address of the bore-server; a suite's own, so that suites can use the same ports. */
  readonly address: string;
  readonly controlPort?: number;
  readonly ports: { readonly min: number; readonly max: number };
  readonly env?: NodeJS.ProcessEnv;
  readonly serverEnv?: NodeJS.ProcessEnv;
  /** Default: one of its own on the PostgreSQL of the run. */
  readonly database?: TestDatabase;
  /** How many descriptors the bore-server may have. */
  readonly descriptors?: number;
}

/** One backend and one bore-server on a database of their own. */
export class Platform {
  private constructor(
    readonly database: TestDatabase,
    public backend: Backend,
    public server: BoreServerProcess,
    private readonly options: PlatformOptions & { readonly dataDir: string },
  ) {}

  static async start(options: PlatformOptions): Promise<Platform> {
    const database = options.database ?? (await createDatabase());
    const dataDir = await newDataDir();
    const backend = await startBackend({ database, env: { ...ENV, ...options.env } });
    const env = { env: options.serverEnv ?? {} };
    const server = await startBoreServer({ ...options, ...env, backend, dataDir });
    return new Platform(database, backend, server, { ...options, dataDir });
  }

  /** Where the bore-server keeps its state. */
  get dataDir(): string {
    return this.options.dataDir;
  }

  /** A new account. */
  async newUser(): Promise<Api> {
    const api = new Api(this.backend.url);
    const { body } = await api.post('/api/v1/auth/signup', {
      email: `${randomUUID()}@example.com`,
      password: PASSWORD,
    });
    return api.withToken(body.accessToken);
  }

  async open(user: Api, body: object = {}): Promise<OpenedTunnel> {
    const answer = await user.post('/api/v1/tunnels', body);
    if (answer.status !== 201) throw new Error(`a tunnel was refused: ${answer.text}`);
    return answer.body;
  }

  async stateOf(tunnel: OpenedTunnel): Promise<string> {
    const [row] = await this.database.query('SELECT state::text FROM tunnels WHERE id = $1', [tunnel.id]);
    return String(row?.state);
  }

  /** A figure of the bore-server's `/metrics`; labels as they are written there. */
  async metric(name: string): Promise<number> {
    const { text } = await new Api(this.server.adminUrl).get('/metrics');
    const line = text.split('\n').find((candidate) => candidate.startsWith(`${name} `));
    return Number(line?.slice(name.length) ?? 0);
  }

  /** A backend at the address of the one before, which is gone. */
  async startBackendAgain(): Promise<void> {
    const PORT = new URL(this.backend.url).port;
    this.backend = await startBackend({ database: this.database, env: { ...ENV, ...this.options.env, PORT } });
  }

  /**
   * Another bore-server process under the same id and ports, on the state that the one before has left.
   * @param register whether to wait until the control plane knows it
   */
  async startServerAgain({ register = true } = {}): Promise<void> {
    const { options, backend } = this;
    const env = { env: options.serverEnv ?? {} };
    this.server = await startBoreServer({ ...options, ...env, backend, register });
  }

  async stop(): Promise<void> {
    await this.server.stop();
    await this.backend.stop();
    await this.database.drop();
  }
}

/** Quick clocks and wide quotas. */
const ENV = {
  PLAN_FREE_TUNNELS: '50',
  RESERVED_CAPACITY_PERCENT: '0',
  HEARTBEAT_INTERVAL_MS: '200',
  HOUSEKEEPING_INTERVAL_MS: '200',
  // as fast as it goes: the limit of a tunnel has tests of its own
  MAX_BANDWIDTH_PER_TUNNEL: '1000000',
};
