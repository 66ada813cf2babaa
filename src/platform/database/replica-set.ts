import type pg from 'pg';
import type { Logger } from 'pino';

import { INTERNAL_PREFIX } from '../../protocol/plane-api.js';
import type { Config } from '../config/config.js';
import { currentRequest } from '../http/request-context.js';
import type { PrismaClient } from './generated/client.js';
import type { PoolFigures, PoolName } from './observed-pool.js';
import { Replica } from './replica.js';
import { type Login, ReplicaMonitor } from './replica-monitor.js';

/** How many replicas answer reads, and how many not. */
export interface ReplicaCount {
  readonly inUse: number;
  readonly leftOut: number;
}

/** The replicas of `DB_REPLICA_HOSTS`, and which of them may answer the request that is being answered. */
export class ReplicaSet {
  private readonly replicas: readonly Replica[];
  private readonly monitor: ReplicaMonitor;
  private turn = 0;

  /**
   * @param pool of the primary: a replica gets as many connections, and the same login
   * @param direct the primary, past a pooler
   */
  constructor(
    primary: PrismaClient,
    pool: pg.PoolConfig,
    direct: Login,
    hosts: Config['DB_REPLICA_HOSTS'],
    logger: Logger,
    onWaited: (name: PoolName, seconds: number) => void,
  ) {
    const addressed = hosts.map((address) => {
      const at = { host: address.host, port: address.port ?? direct.port };
      return {
        replica: new Replica(`${at.host}:${at.port}`, primary, { ...pool, ...at }, logger, onWaited),
        login: { ...direct, ...at },
      };
    });
    this.replicas = addressed.map(({ replica }) => replica);
    this.monitor = new ReplicaMonitor(direct, addressed, logger);
  }

  start(): void {
    this.monitor.start();
  }

  /** The next replica in turn that may answer; undefined: the primary must. */
  choose(): Replica | undefined {
    const fence = requestFence();
    if (fence === null) return undefined;
    const serving = this.replicas.filter((replica) => replica.serves(fence));
    return serving[this.turn++ % serving.length];
  }

  pools(): PoolFigures[] {
    return this.replicas.map(({ pool }) => pool.figures);
  }

  count(): ReplicaCount {
    const inUse = this.replicas.filter((replica) => replica.inUse).length;
    return { inUse, leftOut: this.replicas.length - inUse };
  }

  async stop(): Promise<void> {
    await this.monitor.stop();
    await Promise.all(this.replicas.map((replica) => replica.close()));
  }
}

/**
 * How much of the log the request that is being answered must see; null: all of it. Jobs act on what they read, requests that
 * change something compare it, and bore-servers are never told what was: all of these read the primary.
 */
function requestFence(): number | null {
  const request = currentRequest();
  if (!request || (request.method !== 'GET' && request.method !== 'HEAD')) return null;
  if (request.routeOptions.url?.startsWith(INTERNAL_PREFIX)) return null;
  // nobody's own writes are in what is public
  return request.caller ? request.caller.readFence : 0;
}
