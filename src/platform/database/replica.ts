import { readReplicas } from '@prisma/extension-read-replicas';
import type pg from 'pg';
import type { Logger } from 'pino';

import { newDatabaseAdapter } from '../tracing/database-spans.js';
import { PrismaClient } from './generated/client.js';
import { ObservedPool, type PoolName } from './observed-pool.js';

/**
 * How far behind the primary a replica may be: what others have written may be missing from a list for so long. Some samples
 * of the monitor, so that one that is late does not count.
 */
export const REPLICA_LAG_MS_MAX = 5_000;

/**
 * After this the primary is asked: what a request loses at most to a replica that hangs, in the second or two until the monitor
 * has noticed. Lists take some milliseconds.
 */
const PATIENCE_MS = 500;
/** How long a read that nobody waits for any more keeps its connection: until the replica ends it, or is seen to be silent. */
const CONNECT_TIMEOUT_MS = 1_000;
const STATEMENT_TIMEOUT_MS = 2_000;
const QUERY_TIMEOUT_MS = 3_000;

/** A replica was not as fast as its callers may expect. It may only be busy: whether it is left out is the monitor's decision. */
export class ReplicaTooSlow extends Error {
  override readonly name = 'ReplicaTooSlow';
}

/**
 * A client whose reads of models go to the replica and everything else to the primary; `$replica()` is for raw reads. The
 * extension would choose among several at random, dead or alive, so each replica has its own, and a ReplicaSet chooses.
 */
export const routedTo = (replica: PrismaClient, primary: PrismaClient) =>
  primary.$extends(readReplicas({ replicas: [replica] }));
/** As the extension types it. */
export type Routed = ReturnType<typeof routedTo>;

/** One replica: its connections, and what the monitor last found out about it. */
export class Replica {
  readonly pool: ObservedPool;
  private readonly client: Routed;
  private readonly own: PrismaClient;
  /** How much of the log it has replayed, in bytes; null: it is left out. */
  private replayed: number | null = null;
  /** When, by our clock, the primary had no more than that. */
  private freshAt = -Infinity;

  constructor(
    readonly name: string,
    primary: PrismaClient,
    settings: pg.PoolConfig,
    private readonly logger: Logger,
    onWaited: (name: PoolName, seconds: number) => void,
  ) {
    const timeouts = {
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      statement_timeout: STATEMENT_TIMEOUT_MS,
      query_timeout: QUERY_TIMEOUT_MS,
    };
    const own = { ...settings, ...timeouts };
    this.pool = new ObservedPool('replica', own, onWaited);
    const adapter = newDatabaseAdapter(this.pool, own, {
      disposeExternalPool: true,
      onPoolError: (err) => this.leaveOut(err.message),
    });
    this.own = new PrismaClient({ adapter });
    this.client = routedTo(this.own, primary);
  }

  /** Whether it answers anybody at all. */
  get inUse(): boolean {
    return this.serves(0);
  }

  /** Whether it may answer who wants the log up to `fence`. */
  serves(fence: number): boolean {
    return this.replayed !== null && this.replayed >= fence && performance.now() - this.freshAt <= REPLICA_LAG_MS_MAX;
  }

  /** @throws ReplicaTooSlow */
  async ask<T>(read: (client: Routed) => Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new ReplicaTooSlow()), PATIENCE_MS);
    });
    try {
      return await Promise.race([read(this.client), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** The monitor has heard of it: how far it is, and when the primary was there. */
  sampled(replayed: number, freshAt: number): void {
    const late = performance.now() - freshAt > REPLICA_LAG_MS_MAX;
    if (late) {
      this.leaveOut('it lags');
      return;
    }
    if (this.replayed === null) this.logger.info({ replica: this.name }, 'replica in use');
    this.replayed = replayed;
    this.freshAt = freshAt;
  }

  /** Until the monitor hears from it again. */
  leaveOut(reason: string): void {
    if (this.replayed !== null) this.logger.warn({ replica: this.name, reason }, 'replica left out');
    this.replayed = null;
  }

  async close(): Promise<void> {
    await this.own.$disconnect();
  }
}
