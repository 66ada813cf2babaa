import { chmod, mkdtemp, readFile } from 'node:fs/promises';
import path from 'node:path';

import pg from 'pg';
import { inject } from 'vitest';

import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/local/embedded-postgres.js';
import { ownPort } from './own-ports.js';
import { BINARIES_HOME } from '../../src/local/state-folders.js';
import { type DatabaseAddress, migrateUp } from '../../src/platform/database/migrations.js';
import type { TestDatabase } from './database.js';
import { scanDatabase } from './secret-scan.js';

/** A PostgreSQL of a suite's own, for suites that kill it. */
export class OwnPostgres implements TestDatabase {
  private pool: pg.Pool | undefined;

  private constructor(
    readonly address: DatabaseAddress,
    readonly dataDir: string,
    private running: EmbeddedPostgres,
    private readonly settings: readonly string[],
  ) {}

  /** @param settings `name=value` */
  static async start(settings: readonly string[] = []): Promise<OwnPostgres> {
    const address = {
      host: '127.0.0.1',
      port: await ownPort(),
      database: 'postgres',
      user: 'postgres',
      password: 'own',
    };
    const folder = await mkdtemp(path.join(inject('scratch'), 'postgres-'));
    // as root, PostgreSQL runs as another user
    await chmod(folder, 0o755);
    const dataDir = path.join(folder, 'data');
    const own = new OwnPostgres(address, dataDir, await startOn(address, dataDir, settings), settings);
    await migrateUp(address);
    return own;
  }

  async query(sql: string, values?: unknown[]): ReturnType<TestDatabase['query']> {
    this.pool ??= new pg.Pool({ ...this.address, max: 4 }).on('error', () => undefined);
    return (await this.pool.query(sql, values)).rows;
  }

  /** A connection that has run these statements and stays as it is. */
  async hold(...statements: string[]): Promise<{ release(): Promise<void>; commit(): Promise<void> }> {
    const client = new pg.Client({ ...this.address });
    // of a test that has failed: the database ends before its holder does
    client.on('error', () => undefined);
    await client.connect();
    for (const statement of statements) await client.query(statement);
    const release = () => client.end();
    return { release, commit: () => client.query('COMMIT').then(release) };
  }

  /** Stops every process of it, as a machine that hangs does. */
  async freeze(): Promise<void> {
    await signalAll(this.running, 'SIGSTOP');
  }

  async thaw(): Promise<void> {
    await signalAll(this.running, 'SIGCONT');
  }

  /** kill -9: of the postmaster; its children notice, and end. */
  async kill9(): Promise<void> {
    await this.pool?.end();
    this.pool = undefined;
    const { process: child } = this.running;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
  }

  async startAgain(): Promise<void> {
    this.running = await startOn(this.address, this.dataDir, this.settings);
  }

  /** Fails when a table holds a secret in clear. */
  async drop(): Promise<void> {
    try {
      await scanDatabase((sql) => this.query(sql));
    } finally {
      await this.pool?.end();
      await this.running.stop();
    }
  }
}

/** To every process of a PostgreSQL. */
export async function signalAll(running: EmbeddedPostgres, signal: NodeJS.Signals): Promise<void> {
  const postmaster = running.process.pid ?? 0;
  const children = await readFile(`/proc/${postmaster}/task/${postmaster}/children`, 'utf8');
  for (const pid of [postmaster, ...children.trim().split(' ').map(Number)]) process.kill(pid, signal);
}

function startOn(address: DatabaseAddress, dataDir: string, settings: readonly string[]): Promise<EmbeddedPostgres> {
  return startEmbeddedPostgres({ ...address, dataDir, binariesHome: BINARIES_HOME, settings });
}
