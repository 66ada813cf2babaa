import { Inject, Injectable, type OnModuleInit } from '@nestjs/common';
import type { Logger } from 'pino';
import { z } from 'zod';

import { LOGGER } from '../logging/logger.js';
import { Database } from './database.js';
import { Prisma } from './generated/client.js';
import { migrationNames, MIGRATIONS_DIR } from './migration-folder.js';

/** The database lacks migrations that this build was made for. */
export class SchemaBehindError extends Error {
  override readonly name = 'SchemaBehindError';

  constructor(missing: readonly string[]) {
    super(`the database lacks ${missing.length} migration(s), the first is ${missing[0]}: run npm run migrate:up`);
  }
}

/**
 * Refuses to start on a database that lacks a migration of this build: requests would fail in ways that name anything but
 * the reason. One of a later version may have more (rolling updates).
 */
@Injectable()
export class SchemaCheck implements OnModuleInit {
  constructor(
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly database: Database,
  ) {}

  /** @throws SchemaBehindError */
  async onModuleInit(): Promise<void> {
    const applied = new Set(await this.applied());
    const missing = (await this.known()).filter((name) => !applied.has(name));
    if (missing.length > 0) throw new SchemaBehindError(missing);
  }

  private async applied(): Promise<string[]> {
    const [table] = await this.database.rows(
      z.object({ there: z.boolean() }),
      Prisma.sql`SELECT to_regclass('_prisma_migrations') IS NOT NULL AS there`,
    );
    if (!table?.there) return [];
    const rows = await this.database.rows(
      z.object({ name: z.string() }),
      Prisma.sql`SELECT migration_name AS name FROM _prisma_migrations WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL`,
    );
    return rows.map(({ name }) => name);
  }

  private async known(): Promise<string[]> {
    try {
      return await migrationNames(MIGRATIONS_DIR);
    } catch (err) {
      // a copy of `dist` alone runs, on a database that is migrated from elsewhere
      this.logger.warn({ err }, 'the migrations are not beside the program: the schema is not checked');
      return [];
    }
  }
}
