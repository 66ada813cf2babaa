import { Injectable } from '@nestjs/common';

import { auditInsert } from '../audit/audit-log.repository.js';
import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import type { SetLogLevelRequest } from './log-level.js';

/** The row that says how much is logged for a time; platform/logging reads it. */
@Injectable()
export class LogLevelRepository {
  constructor(private readonly database: Database) {}

  /** Sets it, or takes it away. */
  async set({ level, minutes }: SetLogLevelRequest): Promise<void> {
    const change =
      level === null
        ? Prisma.sql`DELETE FROM log_level`
        : Prisma.sql`
            INSERT INTO log_level (level, until) VALUES (${level}, now() + make_interval(mins => ${minutes}::int))
            ON CONFLICT (only_row) DO UPDATE SET level = excluded.level, until = excluded.until`;
    const event = { action: 'log_level.changed', details: level === null ? { level } : { level, minutes } } as const;
    await this.database.$executeRaw`WITH changed AS (${change}) ${auditInsert(event)}`;
  }
}
