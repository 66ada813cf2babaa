import { randomBytes } from 'node:crypto';

import pg from 'pg';
import { inject } from 'vitest';

import type { DatabaseAddress } from '../../src/platform/database/migrations.js';
import { scanDatabase } from './secret-scan.js';

const TEMPLATE = 'template_migrated';

type Row = Record<string, string | number | boolean | Date | null>;

/** A database of one suite's own. */
export interface TestDatabase {
  readonly address: DatabaseAddress;
  query(sql: string, values?: unknown[]): Promise<Row[]>;
  /** Fails when a table holds a secret in clear. */
  drop(): Promise<void>;
}

/** Migrates the database that every suite's own is copied from. */
export async function createTemplate(
  address: DatabaseAddress,
  migrate: (to: DatabaseAddress) => Promise<unknown>,
): Promise<void> {
  await asSuperuser(address, (client) => client.query(`CREATE DATABASE ${TEMPLATE}`));
  await migrate({ ...address, database: TEMPLATE });
}

/** A fresh database with all migrations applied, or an empty one. */
export async function createDatabase({ migrated = true } = {}): Promise<TestDatabase> {
  const server = inject('postgres');
  const database = `test_${randomBytes(6).toString('hex')}`;
  await asSuperuser(server, (client) =>
    client.query(`CREATE DATABASE ${database} ${migrated ? `TEMPLATE ${TEMPLATE}` : ''}`),
  );
  const address = { ...server, database };
  const pool = new pg.Pool({ ...address, max: 4 });
  // a connection that says goodbye may still be there when the database is dropped with FORCE
  pool.on('error', () => undefined);
  const query: TestDatabase['query'] = async (sql, values) => (await pool.query<Row>(sql, values)).rows;
  return {
    address,
    query,
    drop: async () => {
      try {
        await scanDatabase(query);
      } finally {
        await pool.end();
      }
      await asSuperuser(server, (client) => client.query(`DROP DATABASE ${database} WITH (FORCE)`));
    },
  };
}

async function asSuperuser(address: DatabaseAddress, work: (client: pg.Client) => Promise<unknown>): Promise<void> {
  const client = new pg.Client({ ...address });
  await client.connect();
  try {
    // copying a template fails while another copy of it is under way
    await client.query(`SELECT pg_advisory_lock(1)`);
    await work(client);
  } finally {
    await client.end();
  }
}
