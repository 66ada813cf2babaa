/**
 * Migrations in Prisma's own format (`prisma/migrations/<timestamp>_<name>/migration.sql`, table `_prisma_migrations`),
 * applied by Prisma's schema engine in its WebAssembly build: the native one is a download that not every machine can make.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises';

import { bindMigrationAwareSqlAdapterFactory } from '@prisma/driver-adapter-utils';
import type { MigrationList, SchemaEngine } from '@prisma/schema-engine-wasm';
import pg from 'pg';

import { MigrationAdapter } from './migration-adapter.js';
import { migrationNames, MIGRATIONS_DIR, PRISMA_DIR } from './migration-folder.js';
import { loadSchemaEngine } from './schema-engine.js';

const SCHEMA_FILE = `${PRISMA_DIR}/schema.prisma`;

/** One `migrate:up` at a time for a database: the second waits, and finds nothing left to do. */
const LOCK = `hashtext('bore-platform.migrations')`;

const NO_FILTERS = { externalTables: [], externalEnums: [] };

/** Where a database is, as node-postgres takes it. */
export interface DatabaseAddress {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  readonly password: string;
}

/** What `status` finds. */
export interface MigrationStatus {
  readonly pending: readonly string[];
  readonly failed: readonly string[];
  /** Applied, and changed on disk since: history must not be rewritten. */
  readonly edited: readonly string[];
  /** Applied, and not on disk: the database is of a later version. */
  readonly unknown: readonly string[];
}

/**
 * Applies what is pending and returns the names.
 * @throws Error from the engine, naming the migration and PostgreSQL's reason, when one fails.
 */
export async function migrateUp(address: DatabaseAddress, directory = MIGRATIONS_DIR): Promise<string[]> {
  const lock = new pg.Client({ ...address, application_name: 'bore-migrate' });
  await lock.connect();
  try {
    await lock.query(`SELECT pg_advisory_lock(${LOCK})`);
    return await withEngine(address, async (engine) => {
      const applied = await engine.applyMigrations({
        migrationsList: await listMigrations(directory),
        filters: NO_FILTERS,
      });
      return applied.appliedMigrationNames;
    });
  } finally {
    await lock.end();
  }
}

/** Compares the migrations on disk with those that the database has. */
export async function migrationStatus(address: DatabaseAddress, directory = MIGRATIONS_DIR): Promise<MigrationStatus> {
  return withEngine(address, async (engine) => {
    const { history, failedMigrationNames, editedMigrationNames } = await engine.diagnoseMigrationHistory({
      migrationsList: await listMigrations(directory),
      optInToShadowDatabase: false,
      filters: NO_FILTERS,
    });
    return {
      pending: history && 'unappliedMigrationNames' in history ? history.unappliedMigrationNames : [],
      unknown: history && 'unpersistedMigrationNames' in history ? history.unpersistedMigrationNames : [],
      failed: failedMigrationNames,
      edited: editedMigrationNames,
    };
  });
}

/** The SQL that turns the database into what `schema.prisma` says; empty when they agree. */
export async function diffToSchema(address: DatabaseAddress): Promise<string> {
  const content = await readFile(SCHEMA_FILE, 'utf8');
  return withEngine(address, async (engine) => {
    const files = [{ path: SCHEMA_FILE, content }];
    // the engine has one connection, and reads the database through it whatever this URL says
    const { stdout } = await engine.diff({
      from: { tag: 'schemaDatasource', files, configDir: PRISMA_DIR },
      to: { tag: 'schemaDatamodel', files },
      script: true,
      exitCode: null,
      filters: NO_FILTERS,
    });
    const sql = stdout ?? '';
    return /^\s*(-- This is an empty migration\.\s*)?$/.test(sql) ? '' : sql;
  });
}

/** Writes the next migration from `diffToSchema` and returns its folder; `null` when there is nothing to write. */
export async function writeMigration(address: DatabaseAddress, name: string, now = new Date()): Promise<string | null> {
  const sql = await diffToSchema(address);
  if (sql === '') return null;
  const timestamp = now.toISOString().replaceAll(/\D/g, '').slice(0, 14);
  const folder = `${MIGRATIONS_DIR}/${timestamp}_${name}`;
  await mkdir(folder);
  await writeFile(`${folder}/migration.sql`, sql);
  return folder;
}

async function withEngine<T>(address: DatabaseAddress, work: (engine: SchemaEngine) => Promise<T>): Promise<T> {
  const schema = await readFile(SCHEMA_FILE, 'utf8');
  const pool = new pg.Pool({ ...address, max: 2, application_name: 'bore-migrate' });
  // a connection that breaks while idle is reported by the next statement
  pool.on('error', () => undefined);
  try {
    const factory = bindMigrationAwareSqlAdapterFactory(new MigrationAdapter(pool));
    const { SchemaEngine: Engine } = await loadSchemaEngine();
    const engine = await Engine.new({ datamodels: [[SCHEMA_FILE, schema]] }, () => undefined, factory);
    try {
      return await work(engine);
    } finally {
      engine.free();
    }
  } finally {
    await pool.end();
  }
}

async function listMigrations(directory: string): Promise<MigrationList> {
  const folders = await migrationNames(directory);
  return {
    baseDir: directory,
    lockfile: { path: 'migration_lock.toml', content: await readFile(`${directory}/migration_lock.toml`, 'utf8') },
    shadowDbInitScript: '',
    migrationDirectories: await Promise.all(
      folders.map(async (path) => ({
        path,
        migrationFile: {
          path: 'migration.sql',
          content: { tag: 'ok' as const, value: await readFile(`${directory}/${path}/migration.sql`, 'utf8') },
        },
      })),
    ),
  };
}
