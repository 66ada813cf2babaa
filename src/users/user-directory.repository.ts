import { Injectable } from '@nestjs/common';

import { Database } from '../platform/database/database.js';
import type { User } from '../platform/database/generated/client.js';
import type { ListUsersQuery } from './admin-user.js';

/** All accounts, as administrators look through them. */
@Injectable()
export class UserDirectoryRepository {
  constructor(private readonly database: Database) {}

  find(id: string): Promise<User | null> {
    return this.database.user.findUnique({ where: { id } });
  }

  /** One more than the page holds, beginning behind `after`. */
  list(query: ListUsersQuery, after: string | undefined): Promise<User[]> {
    const { email, role, plan, suspended, sort, limit } = query;
    const direction = sort.startsWith('-') ? 'desc' : 'asc';
    // ids are UUIDv7: by age
    const key = sort.endsWith('email') ? 'email' : 'id';
    const behind = direction === 'asc' ? { gt: after } : { lt: after };
    return this.database.read((reader) =>
      reader.user.findMany({
        where: {
          AND: [
            after === undefined ? {} : { [key]: behind },
            // Prisma hands LIKE's wildcards on as such
            email === undefined ? {} : { email: { startsWith: email.replaceAll(/[\\%_]/g, '\\$&') } },
            role === undefined ? {} : { role },
            plan === undefined ? {} : { plan },
            suspended === undefined ? {} : { suspendedAt: suspended ? { not: null } : null },
          ],
        },
        orderBy: { [key]: direction },
        take: limit + 1,
      }),
    );
  }
}
