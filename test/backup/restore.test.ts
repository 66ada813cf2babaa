/** A restore as production has it: by the owner of the database, who is no superuser. */
import { mkdtemp, stat, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';

import { SUPERUSER, type SystemPostgres, systemPostgresBin } from '../harness/system-postgres.js';
import { until } from '../harness/until.js';
import { backupCommand, startBackupCommand } from './backup-command.js';
import { filledPostgres } from './filled-postgres.js';

describe.skipIf(systemPostgresBin() === undefined)('restore by an ordinary owner', () => {
  let postgres: SystemPostgres;
  let folder: string;

  beforeAll(async () => {
    postgres = await filledPostgres();
  });
  afterAll(() => postgres.drop());
  beforeEach(async () => {
    await postgres.endPool();
    folder = await mkdtemp(path.join(inject('scratch'), 'restores-'));
  });

  const run = (args: readonly string[], env: NodeJS.ProcessEnv = {}) => backupCommand(args, postgres.address, env);
  const backup = async (): Promise<string> => {
    const { code, output } = await run(['backup', '--dir', folder]);
    expect([code, output]).toEqual([0, expect.stringMatching(/dump: \d+ rows/)]);
    await postgres.endPool();
    return output.slice(0, output.indexOf(':'));
  };
  const bySuperuser = (sql: string) =>
    postgres.asSuperuser((client) => client.query(sql), postgres.address.database).then(() => undefined);
  const users = async () => (await postgres.query('SELECT count(*)::int AS n FROM users'))[0]?.['n'];
  const extensions = async () =>
    (await postgres.query(`SELECT extname FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1`)).map(
      ({ extname }) => extname,
    );

  it('leaves out the extensions that only a superuser makes, and brings back those that the owner may make', async () => {
    expect(await postgres.query('SELECT rolsuper FROM pg_roles WHERE rolname = current_user')).toEqual([
      { rolsuper: false },
    ]);
    await bySuperuser('CREATE EXTENSION pg_stat_statements');
    await postgres.query('CREATE EXTENSION citext');
    await postgres.query('CREATE TABLE own_words (word citext)');
    await postgres.query(`INSERT INTO own_words VALUES ('Bore')`);
    const dump = await backup();
    expect(await extensions()).toEqual(['citext', 'pg_stat_statements']);
    await postgres.endPool();

    const leftOut = expect.stringMatching(/^left out: pg_stat_statements: only a superuser/m);
    // over what is there: the extension goes with the schema that it is in
    expect(await run(['restore', '--overwrite', dump])).toEqual({ code: 0, output: leftOut });
    expect([await extensions(), await users()]).toEqual([['citext'], 500]);
    await postgres.recreateDatabase();
    expect(await run(['restore', dump])).toEqual({ code: 0, output: leftOut });
    expect([await extensions(), await users()]).toEqual([['citext'], 500]);
    expect(await postgres.query(`SELECT count(*)::int AS n FROM own_words WHERE word = 'bORE'`)).toEqual([{ n: 1 }]);

    // one that is there, elsewhere, stays
    await postgres.recreateDatabase();
    await bySuperuser('CREATE SCHEMA monitoring; CREATE EXTENSION pg_stat_statements SCHEMA monitoring');
    const { code, output } = await run(['restore', '--overwrite', dump]);
    expect([code, output]).toEqual([0, expect.not.stringContaining('left out')]);
    expect([await extensions(), await users()]).toEqual([['citext', 'pg_stat_statements'], 500]);

    // a superuser brings back all
    await postgres.recreateDatabase();
    expect(await backupCommand(['restore', dump], { ...postgres.address, user: SUPERUSER })).toEqual({
      code: 0,
      output: expect.not.stringContaining('left out'),
    });
    await bySuperuser('GRANT SELECT ON users TO PUBLIC');
    expect([await extensions(), await users()]).toEqual([['citext', 'pg_stat_statements'], 500]);
    // for the tests that follow
    await postgres.recreateDatabase();
    expect(await run(['restore', dump])).toMatchObject({ code: 0 });
  });

  it('is done with COMMIT: that the connection is lost behind it, and ANALYZE fails, is a warning', async () => {
    const dump = await backup();
    await postgres.query(`UPDATE users SET name = 'newer'`);
    await postgres.endPool();
    // psql that has done its work, and does not end before it may
    const real = systemPostgresBin() ?? '';
    const [done, go] = [path.join(folder, 'done'), path.join(folder, 'go')];
    await symlink(path.join(real, 'pg_restore'), path.join(folder, 'pg_restore'));
    await writeFile(
      path.join(folder, 'psql'),
      `#!/bin/sh\n${real}/psql "$@"\ncode=$?\n: > ${done}\nwhile [ ! -e ${go} ]; do sleep 0.05; done\nexit $code\n`,
      { mode: 0o755 },
    );
    const restore = startBackupCommand(['restore', '--overwrite', dump], postgres.address, { PG_BIN_DIR: folder });
    const exists = (file: string) =>
      stat(file).then(
        () => true,
        () => false,
      );
    await until(() => exists(done), 'psql has done its work', 30_000);
    const { database } = postgres.address;
    const allow = (how: boolean) =>
      postgres.asSuperuser((client) => client.query(`ALTER DATABASE ${database} ALLOW_CONNECTIONS ${how}`));
    try {
      await allow(false);
      await postgres.asSuperuser((client) =>
        client.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [database]),
      );
      await writeFile(go, '');
      expect([await restore.exitCode(), restore.output()]).toEqual([
        0,
        expect.stringMatching(/^restored: the state of /m),
      ]);
      expect(restore.output()).toMatch(/^backup: warning: run ANALYZE, .* bore_db cannot be reached: /m);
    } finally {
      await allow(true);
    }
    expect(await postgres.query(`SELECT count(*)::int AS n FROM users WHERE name IS NULL`)).toEqual([{ n: 500 }]);
  });

  it('says where it writes to, and goes into a database of another name only when that is said', async () => {
    const dump = await backup();
    const { host, port, user } = postgres.address;
    const other = { ...postgres.address, database: 'bore_copy' };
    await postgres.asSuperuser((client) => client.query(`CREATE DATABASE ${other.database} OWNER ${user}`));
    const refused = `backup: ${dump} is of the database bore_db, and bore_copy at ${host}:${port} is another: give --other-database if that is meant`;
    for (const flags of [[], ['--overwrite']]) {
      expect(await backupCommand(['restore', ...flags, dump], other)).toEqual({ code: 1, output: refused });
    }
    const { code, output } = await backupCommand(['restore', '--other-database', dump], other);
    const [first, second] = output.split('\n');
    expect([code, first]).toEqual([
      0,
      expect.stringMatching(/^restoring the state of \d{4}-\S+Z into bore_copy at 127\.0\.0\.1:\d+$/),
    ]);
    expect(second).toMatch(/^restored: the state of /);
    const copied = await postgres.asSuperuser(
      (client) => client.query('SELECT count(*)::int AS n FROM users'),
      other.database,
    );
    expect(copied.rows).toEqual([{ n: 500 }]);
  });
});
