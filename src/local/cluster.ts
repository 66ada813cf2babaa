/**
 * The whole platform as it runs in production, on the loopback addresses of one machine:
 *
 *   clients and visitors → nginx at the public address → three backends and three bore-servers, each pair at an address of its own
 *   backends → PostgreSQL, its streaming replica, and Redis
 *
 * Started in this order, stopped in the opposite one.
 */
import type { DatabaseAddress } from '../platform/database/migrations.js';
import { ClusterPart, type RunningPart } from './cluster-part.js';
import { type ClusterOptions, ClusterPrograms } from './cluster-programs.js';
import { prepareDatabase } from './first-database.js';
import { findNginx } from './nginx.js';
import { isPrometheusInstalled } from './prometheus.js';
import { peersKnown } from './peers-known.js';
import { checkRedisInstalled } from './redis.js';

/** What runs, for as long as it does: each part by its name, to be killed, held and started again. */
export class Cluster {
  readonly primary: ClusterPart;
  readonly replica: ClusterPart;
  readonly redis: ClusterPart;
  readonly backends: readonly ClusterPart[];
  readonly nginx: ClusterPart;
  readonly servers: readonly ClusterPart[];
  /** Missing where Prometheus is not installed. */
  readonly prometheus: ClusterPart | undefined;
  private readonly programs: ClusterPrograms;

  constructor(private readonly options: ClusterOptions) {
    const { machines } = options.settings;
    const programs = new ClusterPrograms(options);
    this.programs = programs;
    this.primary = new ClusterPart('PostgreSQL', () => programs.startPrimary());
    this.replica = new ClusterPart('PostgreSQL replica', () => programs.startReplica());
    this.redis = new ClusterPart('Redis', () => programs.startRedis());
    const part = (name: string, launch: (name: string) => Promise<RunningPart>) =>
      new ClusterPart(name, () => launch(name));
    this.backends = machines.map((machine, i) =>
      part(`backend-${i + 1}`, (name) => programs.startBackend(machine, name)),
    );
    this.nginx = new ClusterPart('nginx', () => programs.startNginx());
    this.servers = machines.map((machine) =>
      part(`bore-server-${machine.name}`, (name) => programs.startServer(machine, name)),
    );
    if (isPrometheusInstalled()) this.prometheus = new ClusterPart('Prometheus', () => programs.startPrometheus());
  }

  /**
   * Resolves when everything is ready; after a failure, `stop` ends what had been started.
   * @throws StartError that says what to install, before anything is started
   */
  async start(): Promise<void> {
    const { environment, signal } = this.options;
    checkRedisInstalled();
    await findNginx(environment['PATH']);
    await this.primary.start();
    signal.throwIfAborted();
    await prepareDatabase(this.database);
    await this.startAll(this.replica);
    await this.startAll(this.redis);
    await this.startAll(...this.backends);
    await this.startAll(this.nginx);
    await this.startAll(...this.servers);
    const { machines, adminPort } = this.options.settings;
    await peersKnown(
      machines.map(({ address }) => `http://${address}:${adminPort}`),
      signal,
    );
    if (this.prometheus) await this.startAll(this.prometheus);
  }

  /** From here on, a part that ends by itself is started again. Resolves when one does not start: why. */
  ended(): Promise<string> {
    return Promise.race(this.parts.map((part) => part.keepRunning(this.options.say)));
  }

  /** Ends everything in order, each within its own limit. */
  async stop(): Promise<void> {
    await this.prometheus?.stop();
    // their last reports go through nginx
    await Promise.all(this.servers.map((part) => part.stop()));
    await this.nginx.stop();
    await Promise.all(this.backends.map((part) => part.stop()));
    for (const part of [this.redis, this.replica, this.primary]) await part.stop();
  }

  /** Ends everything at once. */
  kill(): void {
    for (const part of this.parts.toReversed()) void part.kill();
  }

  /**
   * As when the primary's machine is lost: the replica takes over its place. There is no replica then until it is started
   * again, as a copy of the new primary.
   */
  async failOver(): Promise<void> {
    await this.primary.kill();
    await this.programs.replacePrimary(this.replica);
    await this.primary.start();
  }

  /** As programs on this machine reach the API: through nginx. */
  get url(): string {
    return this.programs.url;
  }

  /** Of the primary. */
  get database(): DatabaseAddress {
    return this.programs.database;
  }

  private get parts(): ClusterPart[] {
    const { primary, replica, redis, backends, nginx, servers, prometheus } = this;
    return [primary, replica, redis, ...backends, nginx, ...servers, ...(prometheus ? [prometheus] : [])];
  }

  /** At once. Waits for all of them also when one fails: what comes up later would not be stopped. */
  private async startAll(...parts: readonly ClusterPart[]): Promise<void> {
    this.options.signal.throwIfAborted();
    const results = await Promise.allSettled(parts.map((part) => part.start()));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }
}
