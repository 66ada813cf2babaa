import { execFile } from 'node:child_process';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { chmod, chown, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import path from 'node:path';
import { promisify } from 'node:util';

import pg from 'pg';
import { inject } from 'vitest';

import { unprivilegedUser } from '../../src/local/embedded-postgres.js';
import type { DatabaseAddress } from '../../src/platform/database/migrations.js';
import type { TestDatabase } from './database.js';
import { ownPort } from './own-ports.js';
import { scanDatabase } from './secret-scan.js';
import { until } from './until.js';

const run = promisify(execFile);
/** Where Debian puts each major version. */
const VERSIONS = '/usr/lib/postgresql';
/** Whom its tools log in as; the owner of the database is an ordinary user, as docs/deployment.md makes it. */
export const SUPERUSER = 'postgres';

/** Folder of the newest PostgreSQL of the system that has its server and its tools; the npm packages have no `pg_dump`. */
export function systemPostgresBin(): string | undefined {
  if (!existsSync(VERSIONS)) return undefined;
  return readdirSync(VERSIONS)
    .sort((a, b) => Number(b) - Number(a))
    .map((major) => path.join(VERSIONS, major, 'bin'))
    .find((bin) =>
      ['postgres', 'initdb', 'pg_dump', 'pg_basebackup'].every((name) => existsSync(path.join(bin, name))),
    );
}

/** A PostgreSQL of the system's packages on folders of its own: for what needs PostgreSQL's own tools. */
export class SystemPostgres implements TestDatabase {
  private pool: pg.Pool | undefined;
  private child: ChildProcess | undefined;

  private constructor(
    readonly bin: string,
    /** Everything of it, owned by the user that it runs as. */
    readonly folder: string,
    readonly address: DatabaseAddress,
  ) {}

  /** @param settings `name=value` */
  static async start(settings: readonly string[] = []): Promise<SystemPostgres> {
    const bin = systemPostgresBin();
    if (bin === undefined) throw new Error('no PostgreSQL of the system');
    const folder = await mkdtemp(path.join(inject('scratch'), 'system-postgres-'));
    const address = {
      host: '127.0.0.1',
      port: await ownPort(),
      database: 'bore_db',
      user: 'bore_user',
      password: 'own-pw',
    };
    const postgres = new SystemPostgres(bin, folder, address);
    await chmod(folder, 0o755);
    const { uid, gid } = unprivilegedUser();
    if (uid !== undefined && gid !== undefined) await chown(folder, uid, gid);
    const passwordFile = path.join(folder, 'password');
    await writeFile(passwordFile, address.password, { mode: 0o644 });
    await postgres.run('initdb', [
      '-D',
      postgres.dataDir,
      '-U',
      SUPERUSER,
      `--pwfile=${passwordFile}`,
      '-A',
      'scram-sha-256',
      '--encoding=UTF8',
      '--locale=C',
      '--no-instructions',
    ]);
    await rm(passwordFile);
    await postgres.startOn(postgres.dataDir, settings);
    await postgres.asSuperuser((client) => client.query(`CREATE USER ${address.user} PASSWORD '${address.password}'`));
    await postgres.recreateDatabase();
    return postgres;
  }

  get dataDir(): string {
    return path.join(this.folder, 'data');
  }

  /** A folder inside its own, which it can write to. */
  async newFolder(name: string): Promise<string> {
    const folder = path.join(this.folder, name);
    await mkdir(folder, { mode: 0o700 });
    const { uid, gid } = unprivilegedUser();
    if (uid !== undefined && gid !== undefined) await chown(folder, uid, gid);
    return folder;
  }

  /** An empty file that it may read and delete. */
  async newFile(file: string): Promise<void> {
    await writeFile(file, '', { mode: 0o600 });
    const { uid, gid } = unprivilegedUser();
    if (uid !== undefined && gid !== undefined) await chown(file, uid, gid);
  }

  /** Runs one of its tools as its user, logged in as its superuser. */
  async run(tool: string, args: readonly string[]): Promise<string> {
    const { stdout } = await run(path.join(this.bin, tool), [...args], {
      ...unprivilegedUser(),
      cwd: '/',
      env: {
        PATH: process.env['PATH'],
        LC_ALL: 'C',
        TZ: 'UTC',
        PGUSER: SUPERUSER,
        PGPASSWORD: this.address.password,
      },
    });
    return stdout;
  }

  async startOn(dataDir: string, settings: readonly string[] = []): Promise<void> {
    const own = [
      'listen_addresses=127.0.0.1',
      'unix_socket_directories=',
      'fsync=off',
      'max_connections=100',
      ...settings,
    ];
    this.child = spawn(
      path.join(this.bin, 'postgres'),
      ['-D', dataDir, '-p', String(this.address.port), ...own.flatMap((setting) => ['-c', setting])],
      { ...unprivilegedUser(), cwd: '/', env: { PATH: process.env['PATH'], LC_ALL: 'C', TZ: 'UTC' }, stdio: 'ignore' },
    );
    await until(
      () =>
        this.asSuperuser((client) => client.query('SELECT 1')).then(
          () => true,
          () => false,
        ),
      'PostgreSQL is up',
      30_000,
    );
  }

  /** kill -9: of the postmaster; its children notice, and end. */
  async kill9(): Promise<void> {
    await this.endPool();
    if (!this.child || this.child.exitCode !== null || this.child.signalCode !== null) return;
    const gone = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await gone;
  }

  async query(sql: string, values?: unknown[]): ReturnType<TestDatabase['query']> {
    this.pool ??= new pg.Pool({ ...this.address, max: 4 }).on('error', () => undefined);
    return (await this.pool.query(sql, values)).rows;
  }

  /** The database is gone, and an empty one in its place. */
  async recreateDatabase(): Promise<void> {
    await this.endPool();
    await this.asSuperuser(async (client) => {
      await client.query(`DROP DATABASE IF EXISTS ${this.address.database} WITH (FORCE)`);
      await client.query(`CREATE DATABASE ${this.address.database} OWNER ${this.address.user}`);
    });
  }

  /** Our own connections count as somebody else's. */
  async endPool(): Promise<void> {
    await this.pool?.end();
    this.pool = undefined;
  }

  /** Fails when a table holds a secret in clear. */
  async drop(): Promise<void> {
    try {
      await scanDatabase((sql) => this.query(sql));
    } finally {
      await this.kill9();
      await rm(this.folder, { recursive: true, force: true, maxRetries: 5 });
    }
  }

  /** @param database where; by default one that nobody else uses */
  async asSuperuser<T>(work: (client: pg.Client) => Promise<T>, database = 'postgres'): Promise<T> {
    const client = new pg.Client({ ...this.address, user: SUPERUSER, database });
    client.on('error', () => undefined);
    await client.connect();
    try {
      return await work(client);
    } finally {
      await client.end();
    }
  }
}
