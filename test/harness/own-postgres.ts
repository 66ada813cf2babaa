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
import { until } from './until.js';

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

  /** kill -9 of the postmaster; resolves when its children have noticed, and ended. */
  async kill9(): Promise<void> {
    await this.pool?.end();
    this.pool = undefined;
    await killPostmaster(this.running);
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
  running.process.kill(signal);
  // one that has just ended is none any more
  for (const pid of await childrenOf(running)) if (!(await isGone(pid))) process.kill(pid, signal);
}

/** kill -9: the next postmaster is refused its memory for as long as one of the children is there. */
export async function killPostmaster(running: EmbeddedPostgres): Promise<void> {
  const children = await childrenOf(running);
  const gone = new Promise((resolve) => running.process.once('exit', resolve));
  running.process.kill('SIGKILL');
  await gone;
  for (const pid of children) await until(() => isGone(pid), `process ${pid} of PostgreSQL ends`);
}

async function childrenOf({ process: { pid } }: EmbeddedPostgres): Promise<number[]> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return children.trim().split(' ').filter(Boolean).map(Number);
}

/** Also when nobody has asked how it ended. */
async function isGone(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return stat === '' || /\) Z /.test(stat);
}

function startOn(address: DatabaseAddress, dataDir: string, settings: readonly string[]): Promise<EmbeddedPostgres> {
  return startEmbeddedPostgres({ ...address, dataDir, binariesHome: BINARIES_HOME, settings });
}
