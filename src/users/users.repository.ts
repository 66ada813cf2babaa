import { Injectable } from '@nestjs/common';
import { v7 as uuidv7 } from 'uuid';

import { auditInsert } from '../audit/audit-log.repository.js';
import { Database } from '../platform/database/database.js';
import { Prisma, type User } from '../platform/database/generated/client.js';
import type { Plan, Role } from '../platform/database/generated/enums.js';
import { UserView } from './user.js';

interface NewUser {
  readonly email: string;
  readonly name: string | null;
  readonly passwordHash: string;
  readonly role: Role;
  readonly plan: Plan;
}

/** Accounts in the database. */
@Injectable()
export class UsersRepository {
  constructor(private readonly database: Database) {}

  /** The new account, or `null` when the e-mail is taken: the unique index decides. */
  async create({ email, name, passwordHash, role, plan }: NewUser): Promise<UserView | null> {
    const event = {
      action: 'account.signed_up',
      target: { type: 'user', id: Prisma.sql`created.id` },
      userId: Prisma.sql`created.id`,
      details: { role },
    } as const;
    const [created] = await this.database.rows(
      UserView,
      Prisma.sql`
        WITH created AS (
          INSERT INTO users (id, email, name, password_hash, role, plan)
          VALUES (${uuidv7()}::uuid, ${email}, ${name}, ${passwordHash}, ${role}::role, ${plan}::plan)
          ON CONFLICT (email) DO NOTHING RETURNING id, email, name, role, plan
        ), audited AS (${auditInsert(event, Prisma.sql`created`)})
        SELECT * FROM created`,
    );
    return created ?? null;
  }

  findByEmail(email: string): Promise<User | null> {
    return this.database.user.findUnique({ where: { email } });
  }
}
