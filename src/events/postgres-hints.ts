import { setTimeout as delay } from 'node:timers/promises';

import pg from 'pg';
import type { Logger } from 'pino';

import type { Config } from '../platform/config/config.js';
import { directConnectionOf } from '../platform/database/database.js';
import type { Hints } from './event-signal.js';

/** What the triggers notify (prisma/migrations, events). */
const CHANNEL = 'bore_events';
/** Until a connection that broke, or was not to be had, is tried again. Readers poll meanwhile. */
const RETRY_MS = 1_000;
const CONNECT_TIMEOUT_MS = 5_000;

/** PostgreSQL's NOTIFY, on a connection of our own: the triggers send it, so nobody has to announce anything. */
export class PostgresHints implements Hints {
  private client: pg.Client | undefined;
  private stopped = false;

  constructor(
    private readonly config: Config,
    private readonly logger: Logger,
    private readonly onHint: () => void,
  ) {
    void this.listen();
  }

  announce(): void {
    // the triggers have
  }

  stop(): void {
    this.stopped = true;
    // nobody waits for its goodbye: a database that does not answer must not hold up the end of the process
    void this.client?.end().catch(() => undefined);
  }

  private async listen(): Promise<void> {
    while (!this.stopped) {
      const client = new pg.Client({
        ...directConnectionOf(this.config),
        connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
        keepAlive: true,
        application_name: 'bore-events',
      });
      this.client = client;
      const ended = new Promise((resolve) => client.once('end', resolve));
      // always followed by `end`
      client.on('error', (err) => this.logger.debug({ err }, 'event signal lost'));
      client.on('notification', this.onHint);
      try {
        await client.connect();
        await client.query(`LISTEN ${CHANNEL}`);
        // what was written while nobody listened
        this.onHint();
        await ended;
      } catch (err) {
        this.logger.debug({ err }, 'event signal is not to be had');
        void client.end().catch(() => undefined);
      }
      if (!this.stopped) await delay(RETRY_MS, undefined, { ref: false });
    }
  }
}
