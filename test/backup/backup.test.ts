import { generateIdentity, identityToRecipient } from 'age-encryption';
import {
  appendFile,
  copyFile,
  mkdtemp,
  readdir,
  readFile,
  rename,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { execFileSync } from 'node:child_process';
import path from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';

import { dumpName } from '../../src/backup/manifest.js';
import { createDatabase } from '../harness/database.js';
import { type SystemPostgres, systemPostgresBin } from '../harness/system-postgres.js';
import { until } from '../harness/until.js';
import { backupCommand, startBackupCommand } from './backup-command.js';
import { filledPostgres } from './filled-postgres.js';

describe.skipIf(systemPostgresBin() === undefined)('backup and restore', () => {
  let postgres: SystemPostgres;
  let folder: string;

  beforeAll(async () => {
    postgres = await filledPostgres();
  });
  afterAll(() => postgres.drop());
  beforeEach(async () => {
    await postgres.endPool();
    folder = await mkdtemp(path.join(inject('scratch'), 'backups-'));
  });

  const run = (args: readonly string[], env: NodeJS.ProcessEnv = {}) => backupCommand(args, postgres.address, env);
  const backup = async (...args: string[]): Promise<string> => {
    const { code, output } = await run(['backup', '--dir', folder, ...args]);
    expect(output).toMatch(/dump: \d+ rows, \d+ bytes, [\d.]+ s/);
    expect(code).toBe(0);
    return output.slice(0, output.indexOf(':'));
  };

  it('is one dump and its manifest, for their owner alone, and is good', async () => {
    const dump = await backup();
    expect((await readdir(folder)).sort()).toEqual([path.basename(dump), `${path.basename(dump)}.manifest.json`]);
    expect((await stat(dump)).mode & 0o777).toBe(0o600);
    const manifest = JSON.parse(await readFile(`${dump}.manifest.json`, 'utf8'));
    expect(manifest).toMatchObject({ format: 1, database: 'bore_db', encryption: 'none', rows: { users: 500 } });
    expect(manifest.migrations.length).toBeGreaterThan(10);
    expect(await run(['verify', dump])).toMatchObject({ code: 0, output: expect.stringContaining('read to its end') });
    expect((await run(['list', '--dir', folder])).output).toContain(dump);
  });

  it.each([
    [
      'one byte changed',
      async (dump: string) => {
        const bytes = await readFile(dump);
        bytes.writeUInt8(bytes.readUInt8(bytes.length >> 1) ^ 1, bytes.length >> 1);
        await writeFile(dump, bytes);
      },
      'its SHA-256 is not that of its manifest',
    ],
    ['cut off', async (dump: string) => truncate(dump, (await stat(dump)).size - 1), 'and not the'],
    ['longer', (dump: string) => appendFile(dump, 'x'), 'and not the'],
    [
      'without its manifest',
      (dump: string) => rename(`${dump}.manifest.json`, `${dump}.elsewhere`),
      'is not a whole backup: it has no manifest',
    ],
    [
      'with a manifest of nothing',
      (dump: string) => writeFile(`${dump}.manifest.json`, '{}'),
      'is not a manifest that this release understands',
    ],
  ])('is refused by verify and by restore when it is %s, and the database stays', async (_what, spoil, sentence) => {
    const dump = await backup();
    await spoil(dump);
    for (const command of [
      ['verify', dump],
      ['restore', '--overwrite', dump],
    ]) {
      const { code, output } = await run(command);
      expect(output).toContain(sentence);
      expect(output.split('\n')).toHaveLength(1);
      expect(code).toBe(1);
    }
    expect(await postgres.query('SELECT count(*)::int AS n FROM users')).toEqual([{ n: 500 }]);
  });

  it('is encrypted for a public key of age, and opened by its secret key alone', async () => {
    const identity = await generateIdentity();
    const [key, wrong] = [path.join(folder, 'key.txt'), path.join(folder, 'wrong.txt')];
    await writeFile(key, `# made for a test\n${identity}\n`);
    await writeFile(wrong, `${await generateIdentity()}\n`);
    const sealed = { BACKUP_AGE_RECIPIENT: await identityToRecipient(identity) };
    const { output } = await run(['backup', '--dir', folder], sealed);
    const dump = output.slice(0, output.indexOf(':'));
    expect(dump).toMatch(/\.dump\.age$/);
    const content = await readFile(dump, 'latin1');
    expect(content).toMatch(/^age-encryption\.org\/v1\n/);
    // what an unencrypted dump begins with
    expect(content).not.toContain('PGDMP');

    expect((await run(['verify', dump])).output).toContain('checksum only');
    expect((await run(['restore', '--overwrite', dump])).output).toContain('BACKUP_AGE_IDENTITY_FILE');
    expect((await run(['verify', dump], { BACKUP_AGE_IDENTITY_FILE: wrong })).output).toContain('cannot be decrypted');
    expect(await run(['verify', dump], { BACKUP_AGE_IDENTITY_FILE: key })).toMatchObject({
      code: 0,
      output: expect.stringContaining('read to its end'),
    });
    expect(await run(['restore', '--overwrite', dump], { BACKUP_AGE_IDENTITY_FILE: key })).toMatchObject({ code: 0 });
    expect(await postgres.query('SELECT count(*)::int AS n FROM users')).toEqual([{ n: 500 }]);
  });

  it('keeps the latest and the young, and touches nothing else', async () => {
    const first = await backup();
    // ten days old, by its manifest
    const takenAt = new Date(Date.now() - 10 * 86_400_000).toISOString();
    const old = path.join(folder, `bore-${takenAt.replaceAll(/[-:.]/g, '')}.dump`);
    const manifest = JSON.parse(await readFile(`${first}.manifest.json`, 'utf8'));
    await rename(first, old);
    await rename(`${first}.manifest.json`, `${old}.manifest.json`);
    await writeFile(`${old}.manifest.json`, JSON.stringify({ ...manifest, takenAt, file: path.basename(old) }));
    const other = path.join(folder, 'bore-20200102T000000000Z.dump');
    await writeFile(other, 'x');
    await writeFile(
      `${other}.manifest.json`,
      JSON.stringify({
        ...manifest,
        database: 'another',
        takenAt: '2020-01-02T00:00:00.000Z',
        file: path.basename(other),
      }),
    );
    // of a run that was killed long ago, of one that may be under way, and of nobody
    const [dead, alive] = ['bore-20200103T000000000Z.dump.partial', 'bore-20200104T000000000Z.dump.partial'];
    for (const name of [dead, alive, 'notes.txt']) await writeFile(path.join(folder, name), 'x');
    await utimes(path.join(folder, dead), 0, 0);
    await utimes(path.join(folder, 'notes.txt'), 0, 0);

    await backup('--keep', '2', '--keep-days', '0');
    expect(await readdir(folder)).toContain(path.basename(old));
    const third = await backup('--keep', '1', '--keep-days', '3650');
    expect(await readdir(folder)).toContain(path.basename(old));
    const latest = await backup('--keep', '1', '--keep-days', '0');
    const names = await readdir(folder);
    expect(names).toContain(path.basename(latest));
    for (const gone of [old, third, dead]) expect(names).not.toContain(path.basename(gone));
    for (const kept of [other, alive, 'notes.txt']) expect(names).toContain(path.basename(kept));
  });

  it('leaves the backups that are there as they are when it is killed in the middle, or cannot be made', async () => {
    const good = await backup();
    // as over a slow network: the dump's beginning, and then next to nothing
    const slow = await mkdtemp(path.join(inject('scratch'), 'slow-'));
    const real = systemPostgresBin() ?? '';
    await writeFile(
      path.join(slow, 'pg_dump'),
      `#!/bin/sh\n[ "$1" = --version ] && exec ${real}/pg_dump --version\n${real}/pg_dump "$@" | { head -c 2000; while echo x; do sleep 0.1; done; }\n`,
      { mode: 0o755 },
    );
    const killed = startBackupCommand(['backup', '--dir', folder], postgres.address, { PG_BIN_DIR: slow });
    const partial = await until(
      async () => (await readdir(folder)).find((name) => name.endsWith('.partial')),
      'it has begun',
    );
    await until(async () => (await stat(path.join(folder, partial))).size >= 2000, 'it is in the middle');
    await killed.kill9();
    expect(await readdir(folder)).toContain(partial);
    expect((await run(['list', '--dir', folder])).output.split('\n')).toHaveLength(1);

    const broken = await backupCommand(['backup', '--dir', folder], { ...postgres.address, database: 'postgres' });
    expect(broken).toEqual({ code: 1, output: 'backup: the database holds no bore-platform: it has no migrations' });
    const away = await backupCommand(['backup', '--dir', folder], { ...postgres.address, port: 1 });
    expect(away.output).toMatch(/^backup: the database bore_db cannot be reached: /);
    expect(away.output).not.toContain(postgres.address.password);
    expect(await run(['verify', good])).toMatchObject({ code: 0 });
    expect((await readdir(folder)).filter((name) => name.endsWith('.manifest.json'))).toHaveLength(1);
  });

  it.each([
    ['under way', async (from: string, to: string) => copyFile(from, `${to}.partial`), '.partial'],
    [
      'whole',
      async (from: string, to: string) => {
        const manifest = JSON.parse(await readFile(`${from}.manifest.json`, 'utf8'));
        await copyFile(from, to);
        await writeFile(`${to}.manifest.json`, JSON.stringify({ ...manifest, file: path.basename(to) }));
      },
      '',
    ],
  ])('leaves another of the same millisecond alone that is %s', async (_what, place, suffix) => {
    const good = await backup();
    // a pg_dump that does not say its version before it may: the moment is fixed then, and the name not yet taken
    const [held, go] = [path.join(folder, 'held'), path.join(folder, 'go')];
    const real = systemPostgresBin() ?? '';
    const slow = await mkdtemp(path.join(inject('scratch'), 'slow-'));
    await symlink(path.join(real, 'pg_restore'), path.join(slow, 'pg_restore'));
    await writeFile(
      path.join(slow, 'pg_dump'),
      `#!/bin/sh\n[ "$1" = --version ] && : > ${held} && while [ ! -e ${go} ]; do sleep 0.05; done\nexec ${real}/pg_dump "$@"\n`,
      { mode: 0o755 },
    );
    const second = startBackupCommand(['backup', '--dir', folder], postgres.address, { PG_BIN_DIR: slow });
    await until(async () => (await readdir(folder)).includes('held'), 'it has its moment', 20_000);
    const [{ began } = {}] = await postgres.query(
      `SELECT xact_start AS began FROM pg_stat_activity WHERE application_name = 'bore-backup' AND xact_start IS NOT NULL`,
    );
    if (!(began instanceof Date)) throw new Error('it has no moment');
    const first = path.join(folder, dumpName(began, false));
    await place(good, first);
    await writeFile(go, '');
    const code = await second.exitCode();
    expect(await readFile(`${first}${suffix}`)).toEqual(await readFile(good));
    if (suffix === '') expect(await run(['verify', first])).toMatchObject({ code: 0 });
    expect((await readdir(folder)).filter((name) => name.startsWith(path.basename(first)))).toHaveLength(
      suffix === '' ? 2 : 1,
    );
    expect([code, second.output()]).toEqual([
      1,
      `backup: ${first} is another backup of the same moment: begin again\n`,
    ]);
  });

  it('says that the disk is full, and leaves nothing of it behind', async (context) => {
    if (process.getuid?.() !== 0) context.skip('mounting a small disk needs root');
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', folder]);
    try {
      expect(await run(['backup', '--dir', folder])).toEqual({
        code: 1,
        output: 'backup: the backup was not made: the disk is full',
      });
      expect(await readdir(folder)).toEqual([]);
    } finally {
      execFileSync('umount', [folder]);
    }
  });

  it('is restored into an empty database, or over what is there when that is said, and into none that is in use', async () => {
    const dump = await backup();
    expect(await run(['restore', dump])).toEqual({
      code: 1,
      output: 'backup: the database bore_db is not empty: give --overwrite to delete what it holds',
    });
    await postgres.query('DELETE FROM users');
    expect((await run(['restore', '--overwrite', dump])).output).toMatch(
      /other connection\(s\) to the database bore_db are open/,
    );
    await postgres.endPool();
    expect(await run(['restore', '--overwrite', dump])).toMatchObject({
      code: 0,
      output: expect.stringMatching(/^restored: the state of /m),
    });
    expect(await postgres.query('SELECT count(*)::int AS n FROM users')).toEqual([{ n: 500 }]);
    await postgres.recreateDatabase();
    expect(await run(['restore', dump])).toMatchObject({ code: 0 });
    expect(await postgres.query('SELECT count(*)::int AS n FROM users')).toEqual([{ n: 500 }]);
  });

  it('changes nothing when it cannot be restored whole', async () => {
    const dump = await backup();
    const manifest = JSON.parse(await readFile(`${dump}.manifest.json`, 'utf8'));
    const set = (part: object) => writeFile(`${dump}.manifest.json`, JSON.stringify({ ...manifest, ...part }));
    await postgres.query(`UPDATE users SET name = 'newer'`);
    await postgres.endPool();
    await set({ rows: { ...manifest.rows, users: 501 } });
    expect(await run(['restore', '--overwrite', dump])).toEqual({
      code: 1,
      output: expect.stringMatching(/^backup: psql: users has 500 rows, and not the 501 of the manifest$/m),
    });
    await set({ migrations: [...manifest.migrations, '29990101000000_later'] });
    expect((await run(['restore', '--overwrite', dump])).output).toMatch(
      /is of a later release: .* 29990101000000_later$/,
    );
    expect(await postgres.query(`SELECT count(*)::int AS n FROM users WHERE name = 'newer'`)).toEqual([{ n: 500 }]);
  });

  it('says what is wrong with the command line or the tools in one sentence', async () => {
    expect(await run(['backup', '--keep', '0'])).toMatchObject({
      code: 2,
      output: expect.stringContaining('from 1 to 10000'),
    });
    expect((await run(['backup', '--dir', folder], { PG_BIN_DIR: '/nowhere' })).output).toMatch(
      /^backup: \/nowhere\/pg_dump cannot be run: install/,
    );
    expect((await run(['backup', '--dir', folder], { BACKUP_AGE_RECIPIENT: 'age1nonsense' })).output).toMatch(
      /BACKUP_AGE_RECIPIENT is not a public key of age/,
    );
    // the PostgreSQL of the tests is newer than the system’s pg_dump, as a rule
    const own = await createDatabase();
    const tooNew = await backupCommand(['backup', '--dir', folder], own.address);
    await own.drop();
    expect(tooNew.output).toMatch(/^backup: pg_dump \d+ cannot back up PostgreSQL 18|dump: \d+ rows/);
  });
});
