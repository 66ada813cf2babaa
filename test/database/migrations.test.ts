import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { diffToSchema, migrateUp, migrationStatus } from '../../src/platform/database/migrations.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';

const MIGRATE = fileURLToPath(new URL('../../dist/platform/database/migrate.js', import.meta.url));
const MIGRATIONS = fileURLToPath(new URL('../../prisma/migrations', import.meta.url));

let database: TestDatabase;
let folder: string;

beforeEach(async () => {
  database = await createDatabase({ migrated: false });
  folder = await mkdtemp(path.join(tmpdir(), 'bore-migrations-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
  await database.drop();
});

/** `npm run migrate:<command>`, without npm. */
async function migrate(args: string[], env: NodeJS.ProcessEnv = {}): Promise<{ code: number; said: string }> {
  const { host, port, database: name, user, password } = database.address;
  const address = { DB_HOST: host, DB_PORT: String(port), DB_NAME: name, DB_USER: user, DB_PASSWORD: password };
  return new Promise((resolve) => {
    // from an empty folder: a developer's .env is not to be read
    const options = { cwd: folder, env: { PATH: process.env['PATH'], ...address, ...env } };
    execFile(process.execPath, [MIGRATE, ...args], options, (error, stdout, stderr) =>
      resolve({ code: Number(error?.code ?? 0), said: stdout + stderr }),
    );
  });
}

const appliedCount = async () => (await database.query('SELECT count(*)::int AS n FROM _prisma_migrations'))[0]?.['n'];

describe('migrate:up and migrate:status', () => {
  it('apply everything to an empty database, once', async () => {
    expect(await migrate(['status'])).toMatchObject({ code: 1, said: expect.stringMatching(/^pending: .*_init/) });
    expect(await migrate(['up'])).toMatchObject({ code: 0, said: expect.stringMatching(/^applied: .*_init/) });
    expect(await migrate(['up'])).toEqual({ code: 0, said: 'the database is up to date\n' });
    expect(await migrate(['status'])).toEqual({ code: 0, said: 'the database is up to date\n' });
  });

  it('go past a pooler, whose connections are lent to others', async () => {
    const { host, port } = database.address;
    const pooled = { DB_HOST: host, DB_PORT: '1', DB_DIRECT_HOST: host, DB_DIRECT_PORT: String(port) };
    expect(await migrate(['up'], pooled)).toMatchObject({ code: 0, said: expect.stringMatching(/^applied: .*_init/) });
  });

  it('apply each migration once when four run at the same time', async () => {
    const runs = await Promise.all([1, 2, 3, 4].map(() => migrate(['up'])));
    expect(runs.map(({ code }) => code)).toEqual([0, 0, 0, 0]);
    expect(runs.filter(({ said }) => said.startsWith('applied: '))).toHaveLength(1);
    expect((await migrationStatus(database.address)).pending).toEqual([]);
    const before = await appliedCount();
    await migrateUp(database.address);
    expect(await appliedCount()).toBe(before);
  });

  it('say in a sentence what they lack', async () => {
    expect(await migrate(['up'], { DB_PASSWORD: undefined })).toEqual({ code: 1, said: 'DB_PASSWORD is missing\n' });
    expect(await migrate(['sideways'])).toMatchObject({ code: 2, said: expect.stringMatching(/^usage: /) });
    expect(await migrate(['new', 'Not A Name'])).toMatchObject({ code: 2 });
    expect((await migrate(['up'], { DB_PORT: '1' })).code).toBe(1);
  });
});

describe('the migrations', () => {
  it('make what schema.prisma says', async () => {
    await migrateUp(database.address);
    expect(await diffToSchema(database.address)).toBe('');
    expect(await migrate(['new', 'nothing'])).toMatchObject({
      code: 0,
      said: expect.stringContaining('nothing to write'),
    });
  });

  it('that fail leave nothing behind, are named, and are in the status', async () => {
    await cp(MIGRATIONS, folder, { recursive: true });
    await mkdir(path.join(folder, '20990101000000_broken'));
    await writeFile(path.join(folder, '20990101000000_broken/migration.sql'), 'CREATE TABLE half (); SELECT 1 / 0;');
    await expect(migrateUp(database.address, folder)).rejects.toThrow(/division by zero[\s\S]*20990101000000_broken/);
    expect(await database.query(`SELECT FROM pg_class WHERE relname = 'half'`)).toEqual([]);
    expect((await migrationStatus(database.address, folder)).failed).toEqual(['20990101000000_broken']);
  });

  it('that were edited or are of a later version are in the status', async () => {
    await cp(MIGRATIONS, folder, { recursive: true });
    await mkdir(path.join(folder, '20990101000000_later'));
    await writeFile(path.join(folder, '20990101000000_later/migration.sql'), 'CREATE TABLE later ();');
    await migrateUp(database.address, folder);
    expect((await migrationStatus(database.address)).unknown).toEqual(['20990101000000_later']);
    await writeFile(path.join(folder, '20990101000000_later/migration.sql'), 'CREATE TABLE other ();');
    expect((await migrationStatus(database.address, folder)).edited).toEqual(['20990101000000_later']);
  });
});
