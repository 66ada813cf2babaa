import { Injectable } from '@nestjs/common';
import { z } from 'zod';

import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';

/** Whose open tunnels are counted: also the label of a metric. */
export const SlotCounter = z.enum(['server', 'user']);

const WrongCounter = z.object({ counter: SlotCounter, id: z.string(), said: z.int(), counted: z.int() });
/** A counter that said something else than the tunnels do. */
export type WrongCounter = z.infer<typeof WrongCounter>;

/** The counters of open tunnels in the database. */
@Injectable()
export class SlotsRepository {
  constructor(private readonly database: Database) {}

  /** Puts right what differs (prisma/migrations, reconcile_open_tunnels), and returns it. */
  reconcile(): Promise<WrongCounter[]> {
    return this.database.rows(
      WrongCounter,
      Prisma.sql`SELECT counter, id, said, counted FROM reconcile_open_tunnels()`,
    );
  }
}
