/** Migrations since the last release take nothing away that its backends use: they run on the new schema during an update. */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';

import { describe, expect, it } from 'vitest';

import { PROJECT_DIR } from '../../src/local/state-folders.js';
import { contractions } from '../harness/contracting-statements.js';
import { migrationsOf, previousRelease } from '../harness/previous-release.js';

const MIGRATIONS = path.join(PROJECT_DIR, 'prisma/migrations');

const whatIn = async (...migrations: string[]) => (await contractions(migrations)).map(({ what }) => what);

describe('what contracts', () => {
  it.each([
    ['ALTER TABLE users DROP COLUMN name', 'drops a column'],
    ['ALTER TABLE users ALTER COLUMN name SET NOT NULL', 'sets NOT NULL'],
    ['ALTER TABLE users ALTER COLUMN name TYPE varchar(10)', 'changes a type'],
    ['ALTER TABLE users ALTER COLUMN name DROP DEFAULT', 'drops a default'],
    ["ALTER TABLE users ADD CONSTRAINT named CHECK (name <> '')", 'adds a constraint'],
    ['ALTER TABLE users DROP CONSTRAINT named', 'drops a constraint'],
    ['ALTER TABLE users ADD COLUMN age integer NOT NULL', 'adds a column that must be given'],
    ['ALTER TABLE users RENAME COLUMN name TO title', 'renames'],
    ['ALTER TABLE users RENAME TO people', 'renames'],
    ["ALTER TYPE plan RENAME VALUE 'free' TO 'gratis'", 'renames'],
    ['CREATE UNIQUE INDEX once ON users (name)', 'adds a unique index'],
    ['DROP TABLE users', 'drops table'],
    ['DROP FUNCTION open_tunnel', 'drops function'],
    ['DROP TYPE plan', 'drops type'],
    ['TRUNCATE users', 'empties a table'],
    ['REVOKE SELECT ON users FROM bore_user', 'takes rights away'],
    ["DO $$ BEGIN EXECUTE 'DROP TABLE users'; END $$", 'cannot be read: DO'],
  ])('%s', async (statement, what) => {
    expect(await contractions([`-- about it\nSELECT 1;\n\n-- and\n${statement};`])).toEqual([{ statement, what }]);
    expect(await whatIn(`SELECT 'ä';\n-- contracts: nothing has used it since 1.2.0\n${statement};`)).toEqual([]);
  });

  it('and what does not', async () => {
    const expanding = [
      'CREATE TABLE pets (id integer PRIMARY KEY)',
      'CREATE INDEX named ON users (name)',
      'CREATE OR REPLACE FUNCTION f() RETURNS void LANGUAGE sql AS $$ DROP TABLE users $$',
      'ALTER TABLE users ADD COLUMN age integer',
      'ALTER TABLE users ADD COLUMN age integer NOT NULL DEFAULT 0',
      'ALTER TABLE users ALTER COLUMN name DROP NOT NULL',
      'ALTER TABLE users ALTER COLUMN name SET DEFAULT 1',
      "ALTER TYPE plan ADD VALUE 'team'",
      "INSERT INTO users VALUES ('-- DROP TABLE users;')",
    ];
    for (const statement of expanding) expect(await whatIn(`${statement};`), statement).toEqual([]);
    // a table that came with the same release
    const added = 'ALTER TABLE pets ADD CONSTRAINT one CHECK (id > 0); CREATE UNIQUE INDEX once ON pets (id);';
    expect(await whatIn('CREATE TABLE pets (id integer);', added)).toEqual([]);
    expect(await whatIn(added)).toHaveLength(2);
  });
});

it('migrations since the last release only expand', async ({ skip }) => {
  const release = await previousRelease();
  if ('missing' in release) return skip(release.missing);
  const known = new Set(await migrationsOf(release));
  const added = (await readdir(MIGRATIONS)).sort().filter((name) => !known.has(name));
  const texts = added.map((name) => readFile(path.join(MIGRATIONS, name, 'migration.sql'), 'utf8'));
  expect(await contractions(await Promise.all(texts))).toEqual([]);
  process.stdout.write(`${added.length} migrations since ${release.name} only expand: ${added.join(', ')}\n`);
});
