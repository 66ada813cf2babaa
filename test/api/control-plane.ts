import { randomUUID } from 'node:crypto';

import { Api } from '../harness/api.js';
import { type Backend, SECRETS, startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { PlaneClient } from './plane-client.js';

const PASSWORD = 'correct horse battery';
const ADMIN = { ADMIN_EMAIL: 'admin@example.com', ADMIN_PASSWORD: PASSWORD };

/** Wide quotas, and bore-servers that are not lost between two heartbeats of a test. */
const ENV = { PLAN_FREE_TUNNELS: '100', RESERVED_CAPACITY_PERCENT: '0', SERVER_LEASE_SECONDS: '600' };

/** Backends on one database, with users and bore-servers that only speak the plane API. */
export class ControlPlane {
  private readonly planes: PlaneClient[] = [];

  private constructor(
    readonly database: TestDatabase,
    readonly backends: Backend[],
    private readonly env: NodeJS.ProcessEnv,
  ) {}

  static async start({
    backends = 1,
    env = {},
  }: { backends?: number; env?: NodeJS.ProcessEnv } = {}): Promise<ControlPlane> {
    const database = await createDatabase();
    const all = { ...ENV, ...ADMIN, ...env };
    const started = await Promise.all(Array.from({ length: backends }, () => startBackend({ database, env: all })));
    return new ControlPlane(database, started, all);
  }

  /** Of the i-th backend, counted round and round. */
  url(i = 0): string {
    return this.backends[i % this.backends.length]?.url ?? '';
  }

  /** A new account; `i` as in {@link url}. */
  async newUser(i = 0): Promise<Api> {
    const api = new Api(this.url(i));
    const email = `${randomUUID()}@example.com`;
    const { body } = await api.post('/api/v1/auth/signup', { email, password: PASSWORD });
    return api.withToken(body.accessToken);
  }

  async admin(): Promise<Api> {
    const api = new Api(this.url());
    const { body } = await api.post('/api/v1/auth/login', { email: ADMIN.ADMIN_EMAIL, password: PASSWORD });
    return api.withToken(body.accessToken);
  }

  /** A bore-server that has registered. */
  async newServer(id: string, portMin: number, portCount = 100): Promise<PlaneClient> {
    const ports = { min: portMin, max: portMin + portCount - 1 };
    const plane = new PlaneClient(this.url(), SECRETS.INTERNAL_API_KEY, id, ports);
    this.planes.push(plane);
    await plane.register();
    return plane;
  }

  /** Kills the i-th backend as the kernel would, and starts another at its address. */
  async killAndRestart(i: number): Promise<void> {
    const backend = this.backends[i];
    if (!backend) throw new Error('there is no such backend');
    await backend.kill9();
    const PORT = new URL(backend.url).port;
    this.backends[i] = await startBackend({ database: this.database, env: { ...this.env, PORT } });
  }

  async stop(): Promise<void> {
    for (const plane of this.planes) plane.close();
    await Promise.all(this.backends.map((backend) => backend.stop()));
    await this.database.drop();
  }
}
