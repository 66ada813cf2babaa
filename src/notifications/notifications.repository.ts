import { Inject, Injectable } from '@nestjs/common';
import { z } from 'zod';

import { auditInsert } from '../audit/audit-log.repository.js';
import { CONFIG, type Config } from '../platform/config/config.js';
import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import { BREAKER_STALE_SECONDS } from '../servers/breaker-views.repository.js';
import { DeliveryView, Notification } from './notification.js';

/** Rows of one step: a thousand bore-servers that are lost at once are told within a minute. */
const STEP_MAX = 100;
/** What no backend knows the target of, or could not be sent for a day, nobody waits for any more. */
const PENDING_HOURS_MAX = 24;

const ClaimedDelivery = Notification.extend({ sequence: z.string(), attempts: z.int() });
/** A delivery lent to whoever asked, and how many attempts this one makes. */
export type ClaimedDelivery = z.infer<typeof ClaimedDelivery>;
const GivenUp = z.object({ target: z.string(), deliveries: z.int() });
type GivenUp = z.infer<typeof GivenUp>;
const ListedNotification = Notification.extend({ sequence: z.string(), deliveries: z.array(DeliveryView) });
export type ListedNotification = z.infer<typeof ListedNotification>;

const VIEW = Prisma.sql`n.sequence::text AS sequence, n.id, n.kind, n.key, n.state, n.occurrences, n.details, iso_instant(n.at) AS at`;

/** What is told to whom, and how far that has come (prisma/migrations, notifications). Times are of the database's clock. */
@Injectable()
export class NotificationsRepository {
  constructor(
    private readonly database: Database,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  /** Notes what nobody writes down as a change: capacity and circuit breakers. */
  async observe(): Promise<void> {
    const { CAPACITY_ALERT_PERCENT, CAPACITY_RECOVERY_PERCENT, TOTAL_SYSTEM_CAPACITY } = this.config;
    await this.database.$executeRaw`
      SELECT observe_conditions(${CAPACITY_ALERT_PERCENT}::int, ${CAPACITY_RECOVERY_PERCENT}::int,
        ${TOTAL_SYSTEM_CAPACITY ?? null}::int, ${BREAKER_STALE_SECONDS}::int)`;
  }

  /** Writes notifications of conditions that are not as they were told. */
  async tell(): Promise<void> {
    await this.database.$executeRaw`
      SELECT tell_conditions(${this.config.NOTIFICATION_COOLDOWN_SECONDS}::int, ${STEP_MAX}::int)`;
  }

  /** Gives new notifications a delivery for each target. */
  async address(targets: readonly string[]): Promise<void> {
    await this.database.$executeRaw`SELECT address_notifications(${[...targets]}::text[], ${STEP_MAX}::int)`;
  }

  /** Those of `targets` that something can be sent now. */
  async due(targets: readonly string[]): Promise<string[]> {
    const rows = await this.database.rows(
      z.object({ target: z.string() }),
      Prisma.sql`SELECT target FROM unnest(${[...targets]}::text[]) target WHERE due_delivery(target) IS NOT NULL`,
    );
    return rows.map(({ target }) => target);
  }

  /** The next delivery of a target, lent for so long; null when there is none, or somebody is sending to it. */
  async claim(target: string, claimId: string, leaseSeconds: number): Promise<ClaimedDelivery | null> {
    const [row] = await this.database.rows(
      ClaimedDelivery,
      Prisma.sql`
        SELECT ${VIEW}, d.attempts FROM claim_delivery(${target}, ${claimId}::uuid, ${leaseSeconds}::int) d
        JOIN notifications n ON n.sequence = d.notification`,
    );
    return row ?? null;
  }

  /** Closes a delivery that was lent; false when it has been lent to somebody else since. */
  async finish(claimId: string, state: 'sent' | 'given_up', failure: string | null): Promise<boolean> {
    const changed = await this.database.$executeRaw`
      UPDATE notification_deliveries SET state = ${state}, failure = ${failure}, finished_at = now(), claim_id = NULL, claimed_until = NULL
      WHERE claim_id = ${claimId}::uuid AND state = 'pending'`;
    return changed > 0;
  }

  /** Gives back a delivery that was lent, to be tried again; false as in {@link finish}. */
  async retry(claimId: string, delaySeconds: number, failure: string): Promise<boolean> {
    const changed = await this.database.$executeRaw`
      UPDATE notification_deliveries SET due_at = now() + make_interval(secs => ${delaySeconds}::int), failure = ${failure},
        claim_id = NULL, claimed_until = NULL
      WHERE claim_id = ${claimId}::uuid AND state = 'pending'`;
    return changed > 0;
  }

  /** Writes a notification of nothing, with its entry in the audit log; returns its id. */
  async addTest(): Promise<string> {
    const audit = auditInsert({ action: 'notifications.tested' }, Prisma.sql`added`);
    const [row] = await this.database.rows(
      z.object({ id: z.guid() }),
      Prisma.sql`
        WITH added AS (INSERT INTO notifications (kind, key, state, details) VALUES ('test', 'system', 'occurred', '{}') RETURNING id),
          audited AS (${audit})
        SELECT id FROM added`,
    );
    if (!row) throw new Error('an insert returned no row');
    return row.id;
  }

  /** One more than the page holds, newest first, from below `before`. */
  list(before: string | undefined, limit: number): Promise<ListedNotification[]> {
    return this.database.readRows(
      ListedNotification,
      Prisma.sql`
        SELECT ${VIEW}, (
            SELECT coalesce(jsonb_agg(jsonb_build_object('target', d.target, 'state', d.state, 'attempts', d.attempts,
              'dueAt', CASE WHEN d.state = 'pending' THEN iso_instant(d.due_at) END,
              'finishedAt', iso_instant(d.finished_at), 'failure', d.failure) ORDER BY d.target), '[]')
            FROM notification_deliveries d WHERE d.notification = n.sequence) AS deliveries
        FROM notifications n WHERE ${before ?? null}::bigint IS NULL OR n.sequence < ${before ?? null}::bigint
        ORDER BY n.sequence DESC LIMIT ${limit + 1}`,
    );
  }

  /** Gives up what has waited for too long; returns how many deliveries of which targets. */
  giveUpOld(): Promise<GivenUp[]> {
    return this.database.rows(
      GivenUp,
      Prisma.sql`
        WITH given_up AS (
          UPDATE notification_deliveries d SET state = 'given_up', finished_at = now(), failure = coalesce(d.failure, 'nobody sent it')
          FROM notifications n
          WHERE n.sequence = d.notification AND d.state = 'pending' AND n.at < now() - make_interval(hours => ${PENDING_HOURS_MAX}::int)
            AND (d.claimed_until IS NULL OR d.claimed_until < now())
          RETURNING d.target)
        SELECT target, count(*)::int AS deliveries FROM given_up GROUP BY target`,
    );
  }

  /** Deletes notifications older than `days` at most `limit`, and conditions that have been over for as long. */
  async forget(days: number, limit: number): Promise<void> {
    await this.database.$transaction([
      this.database.$executeRaw`
        DELETE FROM notifications WHERE sequence IN (
          SELECT sequence FROM notifications WHERE at < now() - make_interval(days => ${days}::int) AND addressed LIMIT ${limit})`,
      this.database.$executeRaw`
        DELETE FROM notification_conditions WHERE (kind, key) IN (
          SELECT kind, key FROM notification_conditions
          WHERE NOT firing AND NOT told AND unheard = 0 AND since < now() - make_interval(days => ${days}::int)
          LIMIT ${limit} FOR UPDATE SKIP LOCKED)`,
    ]);
  }
}
