import { EventEmitter } from 'node:events';

import { Inject, Injectable, type OnApplicationShutdown, type OnModuleInit } from '@nestjs/common';
import { isDriverAdapterError } from '@prisma/driver-adapter-utils';
import type { Logger } from 'pino';
import { z } from 'zod';

import { CONFIG, type Config } from '../config/config.js';
import { LOGGER } from '../logging/logger.js';
import { newDatabaseAdapter } from '../tracing/database-spans.js';
import { Prisma, PrismaClient } from './generated/client.js';
import { ObservedPool, type PoolFigures, type PoolName } from './observed-pool.js';
import { readFenceOf } from './read-fence.js';
import { type Routed, routedTo } from './replica.js';
import { type ReplicaCount, ReplicaSet } from './replica-set.js';

/** A connection that is not to be had in this time is an outage: the caller hears 503 instead of waiting on. */
const CONNECT_TIMEOUT_MS = 5_000;
/** No statement of ours takes a second; this ends one that is stuck. */
const STATEMENT_TIMEOUT_MS = 10_000;
/** The same, when it is PostgreSQL or the network that is stuck: later than its own limit, so that this has the first word. */
const QUERY_TIMEOUT_MS = 12_000;
/** Locks are held for milliseconds. Who waits longer holds a connection that reads and heartbeats need. */
const LOCK_TIMEOUT_MS = 3_000;
/**
 * A backend that stops in the middle of a transaction loses its locks before others give up waiting: all admissions need one of them.
 * Were several of its transactions waiting for that lock, each gets it in turn, and holds it for as long.
 */
const IDLE_IN_TRANSACTION_TIMEOUT_MS = 2_000;

/** Where the database is, as node-postgres takes it. */
export function connectionOf(config: Config) {
  return {
    host: config.DB_HOST,
    port: config.DB_PORT,
    database: config.DB_NAME,
    user: config.DB_USER,
    password: config.DB_PASSWORD.reveal(),
  };
}

/** The same past a pooler that lends connections for a transaction only: for LISTEN and whatever else stays on a connection. */
export function directConnectionOf(config: Config) {
  const { host, port, ...rest } = connectionOf(config);
  return { ...rest, host: config.DB_DIRECT_HOST ?? host, port: config.DB_DIRECT_PORT ?? port };
}

/** What a read that may be answered by a replica works with: models, and no statement that could write. */
export type Reader = Omit<Routed, `$${string}`>;

/**
 * The Prisma client, and raw statements whose rows are parsed, not believed. Only repositories use it.
 *
 * Everything goes to the primary, except what is asked by {@link read} and {@link readRows}: lists, history and figures, which
 * may be some seconds old. Those too go to the primary where a replica would show a caller less than they have written.
 */
@Injectable()
export class Database extends PrismaClient implements OnModuleInit, OnApplicationShutdown {
  /** Tells how long, in seconds, somebody has waited for a connection of a pool. */
  readonly poolWaits: EventEmitter<{ waited: [PoolName, number] }>;
  private readonly pool: ObservedPool;
  private readonly replicas: ReplicaSet | null;
  /** This client, as the extension types it. */
  private readonly primaryReader: Reader;

  constructor(@Inject(CONFIG) config: Config, @Inject(LOGGER) logger: Logger) {
    const settings = {
      ...connectionOf(config),
      max: config.DB_POOL_SIZE,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      statement_timeout: STATEMENT_TIMEOUT_MS,
      query_timeout: QUERY_TIMEOUT_MS,
      lock_timeout: LOCK_TIMEOUT_MS,
      idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_TIMEOUT_MS,
      keepAlive: true,
      application_name: 'bore-backend',
    };
    const poolWaits = new EventEmitter<{ waited: [PoolName, number] }>();
    const onWaited = (name: PoolName, seconds: number): void => void poolWaits.emit('waited', name, seconds);
    const pool = new ObservedPool('primary', settings, onWaited);
    super({
      adapter: newDatabaseAdapter(pool, settings, {
        disposeExternalPool: true,
        onPoolError: (err) => logger.warn({ err }, 'database connection lost'),
      }),
    });
    this.poolWaits = poolWaits;
    this.pool = pool;
    const hosts = config.DB_REPLICA_HOSTS;
    this.replicas =
      hosts.length > 0 ? new ReplicaSet(this, settings, directConnectionOf(config), hosts, logger, onWaited) : null;
    this.primaryReader = routedTo(this, this).$primary();
  }

  /** Whether there are replicas, and so {@link AccountWrites} to keep. */
  get hasReplicas(): boolean {
    return this.replicas !== null;
  }

  /** How many of the replicas answer reads now. */
  countReplicas(): ReplicaCount {
    return this.replicas?.count() ?? { inUse: 0, leftOut: 0 };
  }

  /** The pools as they are now: that of the primary, and one for each replica. */
  pools(): PoolFigures[] {
    return [this.pool.figures, ...(this.replicas?.pools() ?? [])];
  }

  onModuleInit(): void {
    this.replicas?.start();
  }

  /** What the check of a request's session selects as its {@link ReadFence}; `accountId` is a column. */
  readFenceOf(accountId: Prisma.Sql): Prisma.Sql {
    return this.replicas ? readFenceOf(accountId) : Prisma.sql`NULL`;
  }

  /** Runs one statement and parses each row. */
  async rows<T>(row: z.ZodType<T>, statement: Prisma.Sql): Promise<T[]> {
    return row.array().parse(await this.$queryRaw(statement));
  }

  /**
   * Runs one statement that opens or closes tunnels, under the lock that admissions take: without it, two of them
   * could wait for each other's counters.
   */
  async rowsUnderCapacityLock<T>(row: z.ZodType<T>, statement: Prisma.Sql): Promise<T[]> {
    const [, rows] = await this.$transaction([this.$executeRaw`SELECT lock_capacity()`, this.$queryRaw(statement)]);
    return row.array().parse(rows);
  }

  /**
   * Runs one statement that counts or changes what belongs to an account, one at a time for each account. The lock is taken in a
   * statement before it, because a statement sees nothing that was committed after it began, however long it waited.
   */
  async rowsUnderAccountLock<T>(userId: string, row: z.ZodType<T>, statement: Prisma.Sql): Promise<T[]> {
    const [, rows] = await this.$transaction([
      this.$queryRaw`SELECT FROM users WHERE id = ${userId}::uuid FOR NO KEY UPDATE`,
      this.$queryRaw(statement),
    ]);
    return row.array().parse(rows);
  }

  /**
   * Reads what may be some seconds old, from a replica where one may answer. `work` is run again when a replica fails. Not for
   * what goes on behind the answer, such as a stream of events: what the caller may be shown was found out when they came.
   */
  read<T>(work: (reader: Reader) => Promise<T>): Promise<T> {
    return this.onReplica(work, () => work(this.primaryReader));
  }

  /** As {@link rows}, for a SELECT of what may be some seconds old. */
  readRows<T>(row: z.ZodType<T>, select: Prisma.Sql): Promise<T[]> {
    return this.onReplica(
      async (replica) => row.array().parse(await replica.$replica().$queryRaw(select)),
      () => this.rows(row, select),
    );
  }

  async onApplicationShutdown(): Promise<void> {
    await this.replicas?.stop();
    await this.$disconnect();
  }

  private async onReplica<T>(onReplica: (replica: Routed) => Promise<T>, onPrimary: () => Promise<T>): Promise<T> {
    const replica = this.replicas?.choose();
    if (!replica) return onPrimary();
    try {
      return await replica.ask(onReplica);
    } catch (error) {
      if (isDatabaseUnavailable(error)) replica.leaveOut(error instanceof Error ? error.message : String(error));
      // once more, whatever it was: a replica may also be behind with the schema
      return onPrimary();
    }
  }
}

/** How the driver adapter describes what PostgreSQL or the socket said. */
const DriverError = z.object({ cause: z.object({ kind: z.string(), originalCode: z.string().optional() }) });
/** Inside Prisma's errors. */
const DriverFailure = z.object({ driverAdapterError: DriverError });

/** Whether an error says that a unique index refused a row. */
export function isUniqueViolation(error: unknown): boolean {
  if (!(error instanceof Prisma.PrismaClientKnownRequestError)) return false;
  // Prisma has a code of its own for it, except in raw statements
  const failure = DriverFailure.safeParse(error.meta);
  return error.code === 'P2002' || failure.data?.driverAdapterError.cause.kind === 'UniqueConstraintViolation';
}

const UNAVAILABLE_KINDS = new Set(['DatabaseNotReachable', 'ConnectionClosed', 'SocketTimeout', 'TooManyConnections']);

/**
 * SQLSTATE classes of a database that is short of something or on its way up or down, which a repeat may find mended:
 * 08 connection, 25 a transaction that took too long or met a replica, 40 rolled back by others, 53 out of resources,
 * 55 a lock that was not to be had, 57 stopped by an operator or a time-out.
 */
const UNAVAILABLE_SQLSTATE = /^(08|25|40|53|55|57)/;

/** What node-postgres itself says, without a code, of connections that broke or were not to be had in time. */
const CONNECTION_MESSAGES =
  /Connection terminated|Query read timeout|timeout exceeded when trying to connect|Client has encountered a connection error/;

/** Whether an error says that the database is not there or has no connection to give, and not that we asked wrongly. */
export function isDatabaseUnavailable(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (error instanceof Prisma.PrismaClientKnownRequestError) {
    // P1xxx: cannot reach, cannot log in, closed; P2024: no connection in time; P2028, P2034: transaction not begun, conflict
    if (/^P1|^P2024$|^P2028$|^P2034$/.test(error.code)) return true;
    const failure = DriverFailure.safeParse(error.meta);
    if (!failure.success) return CONNECTION_MESSAGES.test(error.message);
    return saysUnavailable(failure.data.driverAdapterError);
  }
  // Prisma passes on as it is what a COMMIT came to, where deferred triggers wait for their lock
  if (isDriverAdapterError(error)) {
    const failure = DriverError.safeParse(error);
    return failure.success && saysUnavailable(failure.data);
  }
  return error instanceof Prisma.PrismaClientInitializationError || CONNECTION_MESSAGES.test(error.message);
}

function saysUnavailable({ cause: { kind, originalCode } }: z.infer<typeof DriverError>): boolean {
  return UNAVAILABLE_KINDS.has(kind) || UNAVAILABLE_SQLSTATE.test(originalCode ?? '');
}
