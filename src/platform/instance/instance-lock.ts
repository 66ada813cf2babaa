import { setTimeout } from 'node:timers/promises';

import type { Logger } from 'pino';
import pg from 'pg';

import type { Config } from '../config/config.js';
import { connectionOf } from '../database/database.js';

/** A predecessor that has been told to stop gives the lock up at once, one that was killed as soon as its host says so. */
const WAIT_MS = 10_000;
const ASK_INTERVAL_MS = 200;
/** How often the connection is tried: how late its loss is noticed, with what one try may take. */
const TRY_INTERVAL_MS = 3_000;
const QUERY_TIMEOUT_MS = 3_000;
/** Who stops, or takes the lock again, waits no longer for the end of the connection before. */
const GOODBYE_MS = 1_000;
/** PostgreSQL notices a host that has vanished after 5 + 3 × 5 seconds, and gives the lock to another. */
const KEEPALIVE_SECONDS = 5;
const KEEPALIVE_PROBES = 3;

/** Another backend runs beside this one, and they would not know of each other. */
export class InstanceError extends Error {
  override readonly name = 'InstanceError';
}

/**
 * Without Redis, limits, breakers and what a process remembers are its own, and so there may be one backend only: a lock
 * in the database, exclusive for it, shared for those that Redis connects. They exclude each other too.
 *
 * The lock is of a transaction that stays open on a connection of its own: that holds behind a pooler too that lends
 * connections for a transaction. It has neither a snapshot nor an id, so it keeps nothing from being vacuumed.
 */
export class InstanceLock {
  private client: pg.Client | undefined;
  private released = false;

  private constructor(
    private readonly config: Config,
    private readonly logger: Logger,
  ) {}

  /**
   * Waits a while for another backend that is about to end.
   * @throws InstanceError when it does not
   */
  static async take(config: Config, logger: Logger): Promise<InstanceLock> {
    const lock = new InstanceLock(config, logger);
    if (!(await lock.wait())) throw new InstanceError(refusal(config));
    return lock;
  }

  /**
   * Holds the lock until it is released. After an outage of the database it is taken again.
   * @param onLost another backend has it meanwhile: this one must end
   */
  async keep(onLost: (error: InstanceError) => void): Promise<void> {
    while (!this.released) {
      await setTimeout(TRY_INTERVAL_MS, undefined, { ref: false });
      if (this.released || (await this.holds())) continue;
      this.logger.warn('the lock of this instance is lost with its connection to the database: taking it again');
      await this.drop();
      if (await this.takeAgain()) this.logger.info('the lock of this instance is taken again');
      else if (!this.released) return onLost(new InstanceError(refusal(this.config)));
    }
  }

  /** From now on another backend may begin: this one takes no more work from outside. */
  async release(): Promise<void> {
    this.released = true;
    await this.drop();
  }

  /** As {@link wait}, and through an outage for as long as it lasts: without a database nobody else has the lock. */
  private async takeAgain(): Promise<boolean> {
    while (!this.released) {
      try {
        return await this.wait();
      } catch {
        // not reachable: /health/ready and whoever needs the database say so
        await setTimeout(TRY_INTERVAL_MS, undefined, { ref: false });
      }
    }
    return false;
  }

  private async wait(): Promise<boolean> {
    const deadline = performance.now() + WAIT_MS;
    for (;;) {
      if (await this.tryToTake()) return true;
      if (this.released || performance.now() > deadline) return false;
      await setTimeout(ASK_INTERVAL_MS);
    }
  }

  private async tryToTake(): Promise<boolean> {
    const client = new pg.Client({
      ...connectionOf(this.config),
      application_name: 'bore-instance',
      connectionTimeoutMillis: QUERY_TIMEOUT_MS,
      query_timeout: QUERY_TIMEOUT_MS,
      keepAlive: true,
    });
    // seen by the next try
    client.on('error', () => undefined);
    try {
      await client.connect();
      // what belongs to the transaction, because a pooler may give the connection to somebody else after it
      await client.query(`BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0;
        SET LOCAL tcp_keepalives_idle = ${KEEPALIVE_SECONDS}; SET LOCAL tcp_keepalives_interval = ${KEEPALIVE_SECONDS};
        SET LOCAL tcp_keepalives_count = ${KEEPALIVE_PROBES}`);
      const shared = this.config.REDIS_ENABLED || this.config.ALLOW_INSTANCES_WITHOUT_REDIS;
      const take = shared ? 'pg_try_advisory_xact_lock_shared' : 'pg_try_advisory_xact_lock';
      const { rows } = await client.query<{ taken: boolean }>(
        `SELECT ${take}(hashtext('bore-platform.instance')) AS taken`,
      );
      if (rows[0]?.taken) this.client = client;
    } finally {
      if (this.client !== client) await end(client);
    }
    return this.client === client;
  }

  private async holds(): Promise<boolean> {
    try {
      await this.client?.query('SELECT');
      return this.client !== undefined;
    } catch {
      return false;
    }
  }

  private async drop(): Promise<void> {
    const { client } = this;
    this.client = undefined;
    if (client) await end(client);
  }
}

async function end(client: pg.Client): Promise<void> {
  // one that hangs would not say goodbye; what it is told stands in its socket, and the lock goes when it reads that
  const patience = setTimeout(GOODBYE_MS, undefined, { ref: false });
  // it may be broken: then there is nothing left to end
  await Promise.race([client.end().catch(() => undefined), patience]);
}

function refusal({ REDIS_ENABLED }: Config): string {
  return REDIS_ENABLED
    ? 'a backend without Redis runs on this database already: stop it, or set REDIS_ENABLED=true for it too'
    : 'another backend runs on this database already, and without Redis there may be one only: stop it, or set REDIS_ENABLED=true for all of them';
}
