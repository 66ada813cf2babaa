import pg from 'pg';

import type { EmbeddedPostgres } from '../../src/local/embedded-postgres.js';
import { promoteReplica, startPostgresReplica } from '../../src/local/postgres-replica.js';
import { BINARIES_HOME } from '../../src/local/state-folders.js';
import type { TestDatabase } from './database.js';
import { ownPort } from './own-ports.js';
import { killPostmaster, type OwnPostgres, signalAll } from './own-postgres.js';

/** A real streaming replica of a suite's own PostgreSQL. */
export class OwnReplica {
  private pool: pg.Pool | undefined;

  private constructor(
    private readonly primary: OwnPostgres,
    readonly port: number,
    private readonly name: string,
    private running: EmbeddedPostgres,
  ) {}

  static async start(primary: OwnPostgres, name: string): Promise<OwnReplica> {
    const port = await ownPort();
    return new OwnReplica(primary, port, name, await startOn(primary, port, name));
  }

  /** As `DB_REPLICA_HOSTS` names it. */
  get host(): string {
    return `127.0.0.1:${this.port}`;
  }

  async query(sql: string, values?: unknown[]): ReturnType<TestDatabase['query']> {
    this.pool ??= new pg.Pool({ ...this.primary.address, port: this.port, max: 2 }).on('error', () => undefined);
    return (await this.pool.query(sql, values)).rows;
  }

  /** It goes on receiving and answering, and shows nothing new. */
  async pauseReplay(): Promise<void> {
    await this.query('SELECT pg_wal_replay_pause()');
  }

  async resumeReplay(): Promise<void> {
    await this.query('SELECT pg_wal_replay_resume()');
  }

  async promote(): Promise<void> {
    await promoteReplica({ ...this.primary.address, port: this.port });
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
    await this.endPool();
    await killPostmaster(this.running);
  }

  async startAgain(): Promise<void> {
    this.running = await startOn(this.primary, this.port, this.name);
  }

  async stop(): Promise<void> {
    await this.endPool();
    await this.running.stop();
  }

  private async endPool(): Promise<void> {
    await this.pool?.end();
    this.pool = undefined;
  }
}

function startOn(primary: OwnPostgres, port: number, name: string): Promise<EmbeddedPostgres> {
  const dataDir = `${primary.dataDir}-${name}`;
  return startPostgresReplica({
    primary: { ...primary.address, dataDir: primary.dataDir },
    name,
    dataDir,
    port,
    binariesHome: BINARIES_HOME,
  });
}
