import { afterAll, beforeAll, expect, it } from 'vitest';

import { createDatabase, type TestDatabase } from '../harness/database.js';

let database: TestDatabase;

beforeAll(async () => {
  database = await createDatabase();
  await database.query(
    "INSERT INTO audit_log (action, at) VALUES ('login.failed', now()), ('login.failed', now() - interval '91 days')",
  );
});

afterAll(() => database.drop());

it.each(["UPDATE audit_log SET action = 'nothing'", 'DELETE FROM audit_log', 'TRUNCATE audit_log'])(
  'the audit log cannot be rewritten: %s',
  async (statement) => {
    await expect(database.query(statement)).rejects.toThrow(/audit_log/);
    expect(await database.query('SELECT action FROM audit_log')).toEqual([
      { action: 'login.failed' },
      { action: 'login.failed' },
    ]);
  },
);

it('only what is older than 90 days can be deleted', async () => {
  await database.query("DELETE FROM audit_log WHERE at < now() - interval '90 days'");
  expect(await database.query('SELECT count(*)::int AS n FROM audit_log')).toEqual([{ n: 1 }]);
});
