import { migrateUp } from '../../src/platform/database/migrations.js';
import { SystemPostgres } from '../harness/system-postgres.js';

/** A server of a suite's own, with our schema and 500 users. */
export async function filledPostgres(): Promise<SystemPostgres> {
  const postgres = await SystemPostgres.start();
  await migrateUp(postgres.address);
  await postgres.query(
    `INSERT INTO users (id, email, password_hash) SELECT gen_random_uuid(), 'u' || n || '@example.com', 'x' FROM generate_series(1, 500) n`,
  );
  return postgres;
}
