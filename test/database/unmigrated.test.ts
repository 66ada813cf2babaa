import { afterEach, expect, it } from 'vitest';

import { startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';

let database: TestDatabase | undefined;

afterEach(() => database?.drop());

const LAST = `(SELECT max(migration_name) FROM _prisma_migrations)`;

async function refusalOn(migrated: boolean, ...statements: string[]): Promise<string> {
  database = await createDatabase({ migrated });
  for (const statement of statements) await database.query(statement);
  const backend = await startBackend({ database, expectFailure: true });
  expect(await backend.exitCode()).toBe(1);
  return backend.output();
}

it('a backend does not start on an empty database, and says what to do', async () => {
  expect(await refusalOn(false)).toMatch(
    /could not start: the database lacks \d+ migration\(s\), the first is \d+_init: run npm run migrate:up/,
  );
});

it.each([
  ['is not applied', `DELETE FROM _prisma_migrations WHERE migration_name = ${LAST}`],
  ['failed half-way', `UPDATE _prisma_migrations SET finished_at = NULL WHERE migration_name = ${LAST}`],
])('nor on one where the last migration %s', async (_, statement) => {
  expect(await refusalOn(true, statement)).toContain('the database lacks 1 migration(s)');
});

it('but on one that a later version has migrated further: rolling updates need that', async () => {
  database = await createDatabase();
  await database.query(
    `INSERT INTO _prisma_migrations (id, checksum, migration_name, finished_at, applied_steps_count) VALUES ('later', '', '20990101000000_later', now(), 1)`,
  );
  const backend = await startBackend({ database });
  await backend.stop();
});
