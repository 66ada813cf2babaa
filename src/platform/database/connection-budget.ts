import { Inject, Injectable, type OnApplicationBootstrap } from '@nestjs/common';
import type { Logger } from 'pino';
import { z } from 'zod';

import { CONFIG, type Config } from '../config/config.js';
import { LOGGER } from '../logging/logger.js';
import { Database } from './database.js';
import { Prisma } from './generated/client.js';
import { connectionsOfAll } from './pool-size.js';

/**
 * Compares what all backends may take with what PostgreSQL says it has. A warning only: a pooler may stand between, and then
 * backends share fewer connections than they see.
 */
@Injectable()
export class ConnectionBudget implements OnApplicationBootstrap {
  constructor(
    @Inject(CONFIG) private readonly config: Config,
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly database: Database,
  ) {}

  onApplicationBootstrap(): void {
    // nobody waits for it
    this.check().catch((err: unknown) => this.logger.warn({ err }, 'max_connections of the database is not known'));
  }

  private async check(): Promise<void> {
    const [row] = await this.database.rows(
      z.object({ max: z.int() }),
      Prisma.sql`SELECT current_setting('max_connections')::int AS max`,
    );
    const wanted = connectionsOfAll(this.config);
    if (!row || row.max >= wanted) return;
    const { BACKEND_INSTANCES: instances, DB_POOL_SIZE: poolSize } = this.config;
    this.logger.warn(
      { maxConnections: row.max, wanted, instances, poolSize },
      'backends may pass max_connections of the database: set DB_MAX_CONNECTIONS to it',
    );
  }
}
