import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { PrismaPg } from '@prisma/adapter-pg';
import type { Logger } from 'pino';
import { z } from 'zod';

import { CONFIG, type Config } from '../config/config.js';
import { LOGGER } from '../logging/logger.js';
import { Prisma, PrismaClient } from './generated/client.js';

/** A connection that is not to be had in this time is an outage: the caller hears 503 instead of waiting on. */
const CONNECT_TIMEOUT_MS = 5_000;
/** No statement of ours takes a second; this ends one that is stuck. */
const STATEMENT_TIMEOUT_MS = 10_000;
/** The same, when it is PostgreSQL or the network that is stuck: later than its own limit, so that this has the first word. */
const QUERY_TIMEOUT_MS = 12_000;
/** Locks are held for milliseconds. Who waits longer holds a connection that reads and heartbeats need. */
const LOCK_TIMEOUT_MS = 3_000;
/** A backend that stops in the middle of a transaction loses its locks before others give up waiting: all admissions need one of them. */
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

/** The Prisma client, and raw statements whose rows are parsed, not believed. Only repositories use it. */
@Injectable()
export class Database extends PrismaClient implements OnApplicationShutdown {
  constructor(@Inject(CONFIG) config: Config, @Inject(LOGGER) logger: Logger) {
    super({
      adapter: new PrismaPg(
        {
          ...connectionOf(config),
          max: config.DB_POOL_SIZE,
          connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
          statement_timeout: STATEMENT_TIMEOUT_MS,
          query_timeout: QUERY_TIMEOUT_MS,
          lock_timeout: LOCK_TIMEOUT_MS,
          idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_TIMEOUT_MS,
          keepAlive: true,
          application_name: 'bore-backend',
        },
        { onPoolError: (err) => logger.warn({ err }, 'database connection lost') },
      ),
    });
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

  async onApplicationShutdown(): Promise<void> {
    await this.$disconnect();
  }
}

/** How the driver adapter describes what PostgreSQL or the socket said, inside Prisma's errors. */
const DriverFailure = z.object({
  driverAdapterError: z.object({ cause: z.object({ kind: z.string(), originalCode: z.string().optional() }) }),
});

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
    const { kind, originalCode } = failure.data.driverAdapterError.cause;
    return UNAVAILABLE_KINDS.has(kind) || UNAVAILABLE_SQLSTATE.test(originalCode ?? '');
  }
  return error instanceof Prisma.PrismaClientInitializationError || CONNECTION_MESSAGES.test(error.message);
}
