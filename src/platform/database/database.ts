import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { PrismaPg } from '@prisma/adapter-pg';
import type { Logger } from 'pino';
import type { z } from 'zod';

import { CONFIG, type Config } from '../config/config.js';
import { LOGGER } from '../logging/logger.js';
import { Prisma, PrismaClient } from './generated/client.js';

/** A connection that is not to be had in this time is an outage: the caller hears 503 instead of waiting on. */
const CONNECT_TIMEOUT_MS = 5_000;
/** No statement of ours takes a second; this ends one that waits on a lock nobody gives back. */
const STATEMENT_TIMEOUT_MS = 10_000;

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

  async onApplicationShutdown(): Promise<void> {
    await this.$disconnect();
  }
}

/** Whether an error says that a unique index refused a row. */
export function isUniqueViolation(error: unknown): boolean {
  return error instanceof Prisma.PrismaClientKnownRequestError && error.code === 'P2002';
}

/** Whether an error says that the database is not there or has no connection to give, and not that we asked wrongly. */
export function isDatabaseUnavailable(error: unknown): boolean {
  // P1xxx: cannot reach, cannot log in, closed; P2024: the pool had no connection in time; P2034/P2037: too busy.
  if (error instanceof Prisma.PrismaClientInitializationError) return true;
  if (error instanceof Prisma.PrismaClientKnownRequestError) return /^P1|^P2024$|^P2034$|^P2037$/.test(error.code);
  return false;
}
