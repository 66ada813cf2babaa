import pg from 'pg';

import type { Manifest } from './manifest.js';

/**
 * Tunnels that wait for their client when the backup was made keep their port for at least so long after the restore: as long as
 * bore-servers let clients come back on their grants (GRANT_TTL), and longer than it takes to start the backends.
 */
const WAIT_MINUTES_MIN = 15;

/**
 * Ids of events and of the audit log go on so far above those of the backup: none that was given out since is given out again, up
 * to 10,000 a second for a day. Readers compare ids, and would take a second event of the same id for one that they have had.
 * There is room for nine million restores below 2^53.
 */
const IDS_AHEAD = 1_000_000_000;

/** Fails the transaction when a table has not as many rows as the backup's manifest says. */
export function countedRowsSql({ rows }: Manifest): string {
  const counts = Object.entries(rows).map(
    ([table, count]) => `
  SELECT count(*) INTO found FROM public.${pg.escapeIdentifier(table)};
  IF found <> ${count} THEN RAISE EXCEPTION '% has % rows, and not the ${count} of the manifest', ${pg.escapeLiteral(table)}, found; END IF;`,
  );
  return `DO $$ DECLARE found bigint; BEGIN ${counts.join('')}\nEND $$;\n`;
}

/**
 * What a database must hear when it has gone back in time while bore-servers, clients and listeners have gone on. Runs in the
 * transaction of a restore, behind all data, or by itself after a recovery to a point in time.
 *
 * Left as it is, because heartbeats mend it: epochs, fences and versions of keys (a bore-server's newer session is taken over),
 * and how far usage was reported (a report since is counted once, or is as lost as the rows that held it).
 *
 * @param moment the moment that the database shows, ISO 8601
 */
export function goneBackSql(moment: string): string {
  const at = `${pg.escapeLiteral(moment)}::timestamptz`;
  return `
SET search_path = public;

-- Logins end: their refresh tokens have been changed for newer ones since, and one that was spent or revoked since would be good again.
UPDATE auth_sessions SET ended_at = now() WHERE ended_at IS NULL;

-- A bore-server may have been restarted since. The process that the backup knows is then not the one that runs, which would hear
-- that another has its id, and end. Known as nobody, each registers anew and goes on with its sessions; and the grace for the return
-- of a lost one begins when a backend first misses it.
UPDATE servers SET
  instance_id = NULL, lease_until = now(),
  state = CASE WHEN state = 'offline' THEN 'online' ELSE state END
WHERE instance_id IS NOT NULL AND deleted_at IS NULL;

-- Clients may have come since for tunnels that waited: their deadlines are moved by the age of the backup, or the first look at
-- them would close tunnels that are carried.
UPDATE tunnels SET idle_deadline = now() + greatest(idle_deadline - ${at}, interval '${WAIT_MINUTES_MIN} minutes')
WHERE state <> 'closed' AND idle_deadline IS NOT NULL;

-- Processes that have ended.
DELETE FROM backends;

SELECT setval(pg_get_serial_sequence(name, 'id'), nextval(pg_get_serial_sequence(name, 'id')) + ${IDS_AHEAD})
FROM (VALUES ('events'), ('audit_log')) AS numbered (name);
`;
}
