import { readFile } from 'node:fs/promises';

import { migrationNames, MIGRATIONS_DIR } from '../platform/database/migration-folder.js';

/** What a migration does to indexes, in the words of its SQL. Groups: made, primary key, dropped, renamed from and to. */
const CHANGES =
  /CREATE (?:UNIQUE )?INDEX (?:CONCURRENTLY )?(?:IF NOT EXISTS )?"(\w+)"|CONSTRAINT "(\w+)" PRIMARY KEY|DROP INDEX (?:CONCURRENTLY )?(?:IF EXISTS )?"(\w+)"|ALTER INDEX "(\w+)" RENAME TO "(\w+)"/g;

/** Names of the indexes that a database has when all migrations of this build are applied. */
export async function expectedIndexes(): Promise<string[]> {
  const expected = new Set<string>();
  for (const name of await migrationNames(MIGRATIONS_DIR)) {
    const sql = await readFile(`${MIGRATIONS_DIR}/${name}/migration.sql`, 'utf8');
    for (const [, made, key, dropped, from, to] of sql.matchAll(CHANGES)) {
      for (const gone of [dropped, from]) if (gone !== undefined) expected.delete(gone);
      for (const there of [made, key, to]) if (there !== undefined) expected.add(there);
    }
  }
  return [...expected];
}
