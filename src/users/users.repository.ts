import { Injectable } from '@nestjs/common';
import { v7 as uuidv7 } from 'uuid';

import { Database, isUniqueViolation } from '../platform/database/database.js';
import type { Plan, Role } from '../platform/database/generated/enums.js';
import type { User } from '../platform/database/generated/client.js';

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
  async create(user: NewUser): Promise<User | null> {
    try {
      return await this.database.user.create({ data: { id: uuidv7(), ...user } });
    } catch (error) {
      if (isUniqueViolation(error)) return null;
      throw error;
    }
  }

  findByEmail(email: string): Promise<User | null> {
    return this.database.user.findUnique({ where: { email } });
  }
}
