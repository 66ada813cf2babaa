import pg from 'pg';
import type { z } from 'zod';

import type { Config } from '../platform/config/config.js';
import type { DatabaseAddress } from '../platform/database/migrations.js';

const CONNECT_TIMEOUT_MS = 5_000;
/** Preflight reads catalogues and two small tables. */
const QUERY_TIMEOUT_MS = 10_000;

/** PostgreSQL itself, past a pooler: what is asked is about the server. */
export function addressOf(config: Config): DatabaseAddress {
  return {
    host: config.DB_DIRECT_HOST ?? config.DB_HOST,
    port: config.DB_DIRECT_PORT ?? config.DB_PORT,
    database: config.DB_NAME,
    user: config.DB_USER,
    password: config.DB_PASSWORD.reveal(),
  };
}

/** One connection, on which nothing can be written. */
export class DatabaseReader {
  private constructor(private readonly client: pg.Client) {}

  /** @throws what the driver throws */
  static async connect(config: Config): Promise<DatabaseReader> {
    const client = new pg.Client({
      ...addressOf(config),
      application_name: 'bore-preflight',
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      query_timeout: QUERY_TIMEOUT_MS,
    });
    // a connection that breaks is reported by the next statement
    client.on('error', () => undefined);
    await client.connect();
    return new DatabaseReader(client);
  }

  /** The rows of a statement that only reads. */
  async rows<T extends z.ZodType>(row: T, sql: string, values: readonly unknown[] = []): Promise<z.output<T>[]> {
    await this.client.query('BEGIN READ ONLY');
    try {
      const { rows } = await this.client.query(sql, [...values]);
      return row.array().parse(rows);
    } finally {
      await this.client.query('ROLLBACK');
    }
  }

  async close(): Promise<void> {
    await this.client.end();
  }
}
