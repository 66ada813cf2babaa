import { Injectable } from '@nestjs/common';

import { Database } from './database.js';
import { LOG_END } from './read-fence.js';

/** Marks the changes that accounts make, for the read fence of their next requests. */
@Injectable()
export class AccountWrites {
  constructor(private readonly database: Database) {}

  /**
   * A change of the account begins: nothing of it is read from replicas until {@link finished}. The row's time stays while another
   * is pending: one whose backend has died ends with it, however many follow (read-fence.ts).
   */
  async begun(accountId: string): Promise<void> {
    await this.database.$executeRaw`
      INSERT INTO account_writes AS w (account_id, position, pending) VALUES (${accountId}::uuid, 0, 1)
      ON CONFLICT (account_id) DO UPDATE SET
        pending = w.pending + 1, at = CASE WHEN w.pending = 0 THEN now() ELSE w.at END`;
  }

  /** A change is done, or has failed; `begun`: it was said to have begun. */
  async finished(accountId: string, { begun }: { begun: boolean }): Promise<void> {
    await this.database.$executeRaw`
      INSERT INTO account_writes AS w (account_id, position) VALUES (${accountId}::uuid, ${LOG_END})
      ON CONFLICT (account_id) DO UPDATE SET
        position = greatest(w.position, excluded.position), pending = greatest(w.pending - ${begun ? 1 : 0}::int, 0),
        at = CASE WHEN w.pending <= ${begun ? 1 : 0}::int THEN now() ELSE w.at END`;
  }
}
