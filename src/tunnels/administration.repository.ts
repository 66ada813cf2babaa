import { Injectable } from '@nestjs/common';
import { z } from 'zod';

import type { AuditAction } from '../audit/audit-action.js';
import { auditInsert } from '../audit/audit-log.repository.js';
import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import { matchesVersion, type SeenVersions } from '../platform/http/etag.js';
import type { UpdateUserRequest } from '../users/admin-user.js';

/** What was closed, and where it must be ended on the wire. */
const Closed = z.array(
  z.object({ id: z.guid(), reason: z.string(), serverId: z.string(), adminUrl: z.string().nullable() }),
);
export type Closed = z.infer<typeof Closed>;

/** What `administer_user` and `suspend_tunnel` decided (prisma/migrations). */
const Outcome = z.enum(['updated', 'forbidden', 'not_found', 'changed', 'own_account', 'closed']);
const Decided = z.object({ outcome: Outcome, closed: Closed });
export type Decided = z.infer<typeof Decided>;

/** What a tunnel is suspended for, and with what consequences. */
export interface Suspension {
  readonly reason: string;
  readonly quarantineHours: number;
  readonly suspendUser: boolean;
}

const UPDATED = Prisma.sql`decided WHERE outcome = 'updated'`;
const withClosed = (details: object) =>
  Prisma.sql`${JSON.stringify(details)}::jsonb || jsonb_build_object('closedTunnels', jsonb_array_length(closed))`;

/** What administrators do to accounts and tunnels: each in one statement, with its entry in the audit log. */
@Injectable()
export class AdministrationRepository {
  constructor(private readonly database: Database) {}

  /** Changes an account that has one of `versions`; suspending it closes its tunnels. */
  async updateUser(actorId: string, id: string, versions: SeenVersions, change: UpdateUserRequest): Promise<Decided> {
    const { plan = null, role = null, name = null, suspended } = change;
    const suspension = suspended === false ? undefined : suspended;
    const action: AuditAction = suspension ? 'user.suspended' : suspended === false ? 'user.restored' : 'user.updated';
    const details = withClosed({ ...change, suspended: undefined, ...suspension });
    // the function compares it again, under the account's lock; no version is negative
    const seen = Prisma.sql`SELECT version FROM users WHERE id = ${id}::uuid AND ${matchesVersion(versions)}`;
    const expected = versions === undefined ? Prisma.sql`NULL::int` : Prisma.sql`coalesce((${seen}), -1)`;
    return this.decide(
      Prisma.sql`administer_user(
        ${actorId}::uuid, ${id}::uuid, ${expected}, ${plan}::plan, ${role}::role, ${name}::text,
        ${suspended === undefined ? null : suspension !== undefined}::boolean, ${suspension?.reason ?? null}::text, ${suspension?.quarantineHours ?? 0}::int)`,
      auditInsert({ action, target: { type: 'user', id }, userId: id, details }, UPDATED),
    );
  }

  /** Closes a tunnel because of what it is used for. */
  async suspendTunnel(actorId: string, id: string, suspension: Suspension): Promise<Decided> {
    const { reason, quarantineHours, suspendUser } = suspension;
    const owner = Prisma.sql`owner_id`;
    const details = withClosed({ reason, quarantineHours });
    const userToo = {
      action: 'user.suspended',
      target: { type: 'user', id: Prisma.sql`owner_id::text` },
      userId: owner,
      details,
    } as const;
    return this.decide(
      Prisma.sql`suspend_tunnel(${actorId}::uuid, ${id}::uuid, ${reason}::text, ${quarantineHours}::int, ${suspendUser})`,
      auditInsert({ action: 'tunnel.suspended', target: { type: 'tunnel', id }, userId: owner, details }, UPDATED),
      ...(suspendUser ? [auditInsert(userToo, UPDATED)] : []),
    );
  }

  /**
   * Closes anybody's tunnel; empty when it is not there or closed before. `null`: the actor is no administrator any more. Asked
   * under the lock that all such changes take.
   */
  async closeTunnel(actorId: string, id: string): Promise<Closed | null> {
    const audit = auditInsert(
      {
        action: 'tunnel.closed',
        target: { type: 'tunnel', id },
        userId: Prisma.sql`(SELECT user_id FROM tunnels WHERE id = ${id}::uuid)`,
        details: { closeReason: 'revoked' },
      },
      Prisma.sql`decided WHERE closed <> '[]'`,
    );
    const [row] = await this.database.rowsUnderCapacityLock(
      z.object({ closed: Closed }),
      Prisma.sql`
        WITH decided AS MATERIALIZED (
            SELECT close_tunnels(ARRAY[${id}::uuid], 'revoked', ${actorId}::uuid, 0, NULL) AS closed
            FROM users WHERE id = ${actorId}::uuid AND role = 'admin' AND suspended_at IS NULL),
          audited AS (${audit})
        SELECT closed FROM decided`,
    );
    return row?.closed ?? null;
  }

  private async decide(decision: Prisma.Sql, ...audits: Prisma.Sql[]): Promise<Decided> {
    const entries = audits.map((audit, i) => Prisma.sql`, ${Prisma.raw(`audited_${i}`)} AS (${audit})`);
    const [decided] = await this.database.rows(
      Decided,
      Prisma.sql`
        WITH decided AS MATERIALIZED (SELECT * FROM ${decision}) ${Prisma.join(entries, '')}
        SELECT outcome, closed FROM decided`,
    );
    if (!decided) throw new Error('a decision returned no row');
    return decided;
  }
}
