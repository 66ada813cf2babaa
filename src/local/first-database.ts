import pg from 'pg';

import { type DatabaseAddress, migrateUp } from '../platform/database/migrations.js';

/** The name of ours, and whose it is. */
export const DATABASE = 'bore_db';
export const DATABASE_USER = 'bore_user';

/** Makes the database where it is missing, and brings its schema up to date. */
export async function prepareDatabase(address: DatabaseAddress): Promise<void> {
  await createDatabase({ ...address, database: 'postgres' }, address.database);
  await migrateUp(address);
}

async function createDatabase(address: DatabaseAddress, name: string): Promise<void> {
  const client = new pg.Client({ ...address, application_name: 'bore-start' });
  await client.connect();
  try {
    const { rowCount } = await client.query('SELECT FROM pg_database WHERE datname = $1', [name]);
    if (rowCount === 0) await client.query(`CREATE DATABASE ${pg.escapeIdentifier(name)}`);
  } finally {
    await client.end();
  }
}
