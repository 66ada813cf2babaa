import pg from 'pg';
import type { Logger } from 'pino';
import { z } from 'zod';

import { FORGET_OLD_WRITES, SET_FLOOR } from './read-fence.js';
import type { Prisma } from './generated/client.js';
import { type Replica, REPLICA_LAG_MS_MAX } from './replica.js';

const INTERVAL_MS = 1_000;
/** One that does not answer before the next sample is due is left out. */
const ANSWER_TIMEOUT_MS = 1_000;
/** A minute: rows that are kept for an hour need no closer watch. */
const SAMPLES_PER_CLEANING = 60;

const Position = z.coerce.number().int();
const PrimarySample = z.object({ cluster: z.string(), flushed: Position });
/** No position: it is no replica. */
const ReplicaSample = z.object({ cluster: z.string(), replayed: Position.nullable() });

const CLUSTER = '(SELECT system_identifier::text FROM pg_control_system()) AS cluster';
/** What has been flushed is what replicas are sent. */
const SAMPLE_PRIMARY = `SELECT ${CLUSTER}, (pg_current_wal_flush_lsn() - '0/0')::bigint AS flushed`;
const SAMPLE_REPLICA = `
  SELECT ${CLUSTER}, CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0')::bigint END AS replayed`;

/** Where a database is, and as whom to ask. */
export type Login = Pick<pg.ClientConfig, 'host' | 'port' | 'database' | 'user' | 'password'>;

/** What the primary had, and when. */
interface PrimaryPosition {
  readonly at: number;
  readonly flushed: number;
}

/**
 * Finds out each second how far each replica is. On connections of its own: those of the pools are busy exactly when it
 * matters, and a sample that waits in line would leave healthy replicas out.
 */
export class ReplicaMonitor {
  private readonly primary: Connection;
  private readonly replicas: readonly { readonly replica: Replica; readonly connection: Connection }[];
  /** The latest last; of the time that a replica may lag. */
  private positions: PrimaryPosition[] = [];
  private cluster: string | undefined;
  private samples = 0;
  private primaryAnswers = true;
  private timer: NodeJS.Timeout | undefined;
  private sampling: Promise<void> = Promise.resolve();

  constructor(
    primary: Login,
    replicas: readonly { readonly replica: Replica; readonly login: Login }[],
    private readonly logger: Logger,
  ) {
    this.primary = new Connection(primary);
    this.replicas = replicas.map(({ replica, login }) => ({
      replica,
      // at once: one that has crashed and is back may have replayed less than it had
      connection: new Connection(login, (error) => replica.leaveOut(error.message)),
    }));
  }

  start(): void {
    const sample = (): void => {
      const began = performance.now();
      this.sampling = this.sample().finally(() => {
        if (!this.timer) return;
        this.timer = setTimeout(sample, Math.max(0, INTERVAL_MS - (performance.now() - began)));
      });
    };
    this.timer = setTimeout(sample, 0);
  }

  async stop(): Promise<void> {
    clearTimeout(this.timer);
    this.timer = undefined;
    await this.sampling;
    await Promise.all([this.primary, ...this.replicas.map(({ connection }) => connection)].map((each) => each.close()));
  }

  /** Never fails: a replica that cannot be asked is left out; without the primary none stays fresh. */
  private async sample(): Promise<void> {
    const failure = await this.samplePrimary().then(
      () => null,
      (err: unknown) => ({ err }),
    );
    if (failure && this.primaryAnswers) this.logger.warn(failure, 'replicas cannot be compared with the primary');
    this.primaryAnswers = !failure;
    await Promise.all(
      this.replicas.map(({ replica, connection }) =>
        this.sampleReplica(replica, connection).catch((error: unknown) => replica.leaveOut(String(error))),
      ),
    );
  }

  private async samplePrimary(): Promise<void> {
    const at = performance.now();
    await this.primary.run(SET_FLOOR);
    if (this.samples++ % SAMPLES_PER_CLEANING === 0) await this.primary.run(FORGET_OLD_WRITES);
    const { cluster, flushed } = await this.primary.ask(PrimarySample, SAMPLE_PRIMARY);
    this.cluster = cluster;
    this.positions = [...this.positions.filter((earlier) => at - earlier.at <= REPLICA_LAG_MS_MAX), { at, flushed }];
  }

  private async sampleReplica(replica: Replica, connection: Connection): Promise<void> {
    const { cluster, replayed } = await connection.ask(ReplicaSample, SAMPLE_REPLICA);
    if (replayed === null) replica.leaveOut('it is not a replica');
    else if (cluster !== this.cluster) replica.leaveOut('it is not a replica of this primary');
    else replica.sampled(replayed, this.positions.findLast(({ flushed }) => flushed <= replayed)?.at ?? -Infinity);
  }
}

/** A connection that is made when it is needed, and anew after a failure. */
class Connection {
  private client: pg.Client | undefined;

  constructor(
    private readonly login: Login,
    private readonly onLost: (error: Error) => void = () => undefined,
  ) {}

  async ask<T>(row: z.ZodType<T>, sql: string): Promise<T> {
    const { rows } = await this.query({ text: sql });
    return z.tuple([row]).parse(rows)[0];
  }

  async run({ text, values }: Prisma.Sql): Promise<void> {
    await this.query({ text, values });
  }

  async close(): Promise<void> {
    const { client } = this;
    this.client = undefined;
    await client?.end().catch(() => undefined);
  }

  private async query(query: pg.QueryConfig): Promise<pg.QueryResult> {
    try {
      this.client ??= await this.connect();
      return await this.client.query(query);
    } catch (error) {
      // one that is silent would not say goodbye either
      void this.close();
      throw error;
    }
  }

  private async connect(): Promise<pg.Client> {
    const client = new pg.Client({
      ...this.login,
      connectionTimeoutMillis: ANSWER_TIMEOUT_MS,
      query_timeout: ANSWER_TIMEOUT_MS,
      keepAlive: true,
      application_name: 'bore-replica-monitor',
    });
    client.on('error', this.onLost);
    await client.connect();
    return client;
  }
}
