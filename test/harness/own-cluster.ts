import { chmod, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { Cluster } from '../../src/local/cluster.js';
import { type ClusterSettings, readClusterSettings } from '../../src/local/cluster-settings.js';
import { newSecrets, type Secrets } from '../../src/local/start-secrets.js';
import { Api } from './api.js';
import { NO_LIMITS } from './backend.js';
import { nginxUnavailable } from './nginx.js';
import { ownPort } from './own-ports.js';
import { redisMissing } from './own-redis.js';
import { scanFiles } from './secret-scan.js';

/** Why no cluster can be had here, or `undefined`. */
export async function clusterUnavailable(): Promise<string | undefined> {
  return redisMissing() ?? (await nginxUnavailable());
}

interface OwnClusterOptions {
  /** Its public address, 127.x.y.z; the machines' are ten higher. Each suite has one of its own. */
  readonly address: string;
  /** Of backends and bore-servers. */
  readonly env?: NodeJS.ProcessEnv;
  /** Of one of them, by its name: `backend-1`, `bore-server-s1`. */
  readonly envOf?: (name: string, settings: ClusterSettings) => NodeJS.ProcessEnv;
}

/** What `npm run cluster` runs, of a suite's own: `cluster.backends[0].kill()` and so on. */
export class OwnCluster {
  private constructor(
    readonly cluster: Cluster,
    readonly settings: ClusterSettings,
    readonly secrets: Secrets,
    private readonly folder: string,
  ) {}

  static async start({ address, env = {}, envOf = () => ({}) }: OwnClusterOptions): Promise<OwnCluster> {
    const port = await ownPort(4);
    const settings = readClusterSettings({
      BORE_LOCAL_BIND: address,
      CLUSTER_DB_PORT: String(port),
      CLUSTER_DB_REPLICA_PORT: String(port + 1),
      CLUSTER_REDIS_PORT: String(port + 2),
      CLUSTER_PROMETHEUS_PORT: String(port + 3),
    });
    const folder = await mkdtemp(path.join(tmpdir(), 'bore-cluster-'));
    // as root, PostgreSQL runs as another user
    await chmod(folder, 0o755);
    const logDir = path.join(folder, 'logs');
    await mkdir(logDir);
    const secrets = newSecrets(port);
    const cluster = new Cluster({
      settings,
      secrets,
      stateDir: folder,
      logDir,
      environment: { PATH: process.env['PATH'], PLAN_FREE_TUNNELS: '100', ...NO_LIMITS, ...env },
      environmentOf: (name) => envOf(name, settings),
      // all callers of a suite are one address
      requestsPerSecond: 100_000,
      signal: new AbortController().signal,
      say: (text) => process.stdout.write(`${text}\n`),
    });
    const own = new OwnCluster(cluster, settings, secrets, folder);
    await cluster.start().catch(async (error: unknown) => {
      await own.stop();
      throw error;
    });
    return own;
  }

  /** Through nginx. */
  get api(): Api {
    return new Api(this.cluster.url);
  }

  /** A backend by itself, counted from 0. */
  backendUrl(index: number): string {
    return `http://${this.settings.machines[index]?.address}:${this.settings.apiPort}`;
  }

  async admin(): Promise<Api> {
    const { ADMIN_EMAIL: email, ADMIN_PASSWORD: password } = this.secrets;
    const { body } = await this.api.post('/api/v1/auth/login', { email, password });
    return this.api.withToken(body.accessToken);
  }

  /**
   * What backends that stopped logged as warnings or worse when their drain was over. (Until then they work as always, and say so
   * when something beside them is late.) Fails unless so many have stopped.
   */
  async loggedErrorsOfStops(stops: number): Promise<string[]> {
    const closes = (await this.logs('backend-')).flatMap((text) => text.split('"msg":"closing"').slice(1));
    if (closes.length !== stops) throw new Error(`${closes.length} backends closed, and not ${stops}`);
    return closes.flatMap((text) => text.split('\n')).filter((line) => /"level":"(warn|error|fatal)"/.test(line));
  }

  /** What nginx says of backends that did not answer. */
  async unansweredByBackends(): Promise<string[]> {
    const lines = (await this.logs('nginx')).flatMap((text) => text.split('\n'));
    return lines.filter((line) => /\[(warn|error)\].*upstream/.test(line));
  }

  /** Of programs whose name begins so, those of their start before the last too. */
  private async logs(prefix: string): Promise<string[]> {
    const folder = path.join(this.folder, 'logs');
    const names = (await readdir(folder)).filter((name) => name.startsWith(prefix));
    return Promise.all(names.map((name) => readFile(path.join(folder, name), 'utf8')));
  }

  /** Fails when its logs hold a secret. */
  async stop(): Promise<void> {
    await this.cluster.stop();
    const { DB_PORT: _, ADMIN_EMAIL: __, ...secrets } = this.secrets;
    await scanFiles(path.join(this.folder, 'logs'), Object.values(secrets));
    await rm(this.folder, { recursive: true, force: true });
  }
}
