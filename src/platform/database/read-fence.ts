/**
 * What lets an account always read its own writes, whichever backend and whichever replica answers:
 *
 * - Before a request that changes something is answered, its account's row in `account_writes` gets the end of PostgreSQL's
 *   log. From before the route runs until then the row says that a change is pending.
 * - The check of the next request's session, which is on the primary anyway, reads that position with it: its **read fence**.
 * - A replica may answer the request when it has replayed the log up to the fence; none may while a change is pending.
 *
 * A row for everybody else (the nil UUID) holds the floor: the end of the log when the table was empty, raised to what was
 * written before rows were deleted. Without it there are no fences, and all reads are the primary's.
 */
import { z } from 'zod';

import { Prisma } from './generated/client.js';

/** The row of all accounts that have none of their own. */
const FLOOR = Prisma.sql`'00000000-0000-0000-0000-000000000000'::uuid`;

/** Where the log ends, as a number of bytes; below 2^53 until 9 PB of it are written. */
export const LOG_END = Prisma.sql`(pg_current_wal_insert_lsn() - '0/0')::bigint`;

/**
 * Rows are kept for so long. Much longer than a replica may lag, so that what their deletion raises the floor to holds nobody
 * up; and a request whose backend died in the middle of it keeps its account on the primary for so long.
 */
const KEEP_MINUTES = 60;

/** What a session's check selects as its read fence: bytes, as {@link ReadFence} parses them. */
export function readFenceOf(accountId: Prisma.Sql): Prisma.Sql {
  return Prisma.sql`
    (SELECT CASE WHEN bool_or(w.account_id = ${FLOOR}) AND bool_and(w.pending = 0) THEN max(w.position) END
     FROM account_writes w WHERE w.account_id IN (${accountId}, ${FLOOR}))`;
}

/** How much of the log a replica must have replayed to answer a request; null: only the primary may. */
export const ReadFence = z.coerce.number().int().nullable();

/** Sets the floor where there is none; to stand in front of a statement. */
export const SET_FLOOR = Prisma.sql`
  INSERT INTO account_writes (account_id, position) VALUES (${FLOOR}, ${LOG_END}) ON CONFLICT DO NOTHING`;

/** Deletes old rows and raises the floor to what they said. */
export const FORGET_OLD_WRITES = Prisma.sql`
  WITH old AS (
    DELETE FROM account_writes WHERE account_id <> ${FLOOR} AND at < now() - make_interval(mins => ${KEEP_MINUTES}::int)
    RETURNING CASE WHEN pending = 0 THEN position ELSE ${LOG_END} END AS position)
  UPDATE account_writes w SET position = greatest(w.position, raised.position)
  FROM (SELECT max(position) AS position FROM old) raised WHERE w.account_id = ${FLOOR} AND raised.position > w.position`;
