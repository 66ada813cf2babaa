import pg from 'pg';

import { until } from '../harness/until.js';
import type { TestDatabase } from '../harness/database.js';

/** A transaction of the test's own, held open while requests run into its locks; rolled back if `work` fails. */
export async function inTransaction(database: TestDatabase, work: (client: pg.Client) => Promise<void>): Promise<void> {
  const client = new pg.Client({ ...database.address });
  await client.connect();
  try {
    await client.query('BEGIN');
    await work(client);
  } finally {
    await client.end();
  }
}

/** Resolves when so many wait for a lock in this database. */
export async function somebodyWaits(database: TestDatabase, count = 1): Promise<void> {
  const waiting = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
  await until(async () => (await database.query(waiting)).length >= count, `${count} wait for a lock`);
}
