import { z } from 'zod';

/** Asks the database that writes go to. */
export type Query = (sql: string, values?: readonly unknown[]) => Promise<readonly unknown[]>;

const Count = z.object({ count: z.coerce.number() });
const EventRow = z.object({ id: z.coerce.string() });
const UsageRow = z.object({ bytes_in: z.coerce.number(), bytes_out: z.coerce.number() });

async function count(query: Query, sql: string): Promise<number> {
  const [row] = await query(`SELECT count(*) FROM (${sql}) AS found`);
  return Count.parse(row).count;
}

/** Servers and users that hold more than they may, and counters that say otherwise than the rows (G1). */
export async function oversold(query: Query, planLimit: number): Promise<number> {
  const servers = `SELECT s.id FROM servers s LEFT JOIN tunnels t ON t.server_id = s.id AND t.state <> 'closed'
    GROUP BY s.id HAVING count(t.id) > s.max_tunnels OR count(t.id) <> s.open_tunnels`;
  const users = `SELECT u.id FROM users u LEFT JOIN tunnels t ON t.user_id = u.id AND t.state <> 'closed'
    GROUP BY u.id HAVING count(t.id) > ${planLimit} OR count(t.id) <> u.open_tunnels`;
  return (await count(query, servers)) + (await count(query, users));
}

/** Ports that two open tunnels of one server have (G1). Counted from the rows, not by the index that forbids it. */
export function doubledPorts(query: Query): Promise<number> {
  return count(
    query,
    `SELECT server_id, port FROM tunnels WHERE state <> 'closed' GROUP BY server_id, port HAVING count(*) > 1`,
  );
}

/** How what one listener was told differs from the outbox of its account, up to the event `last`: not told, told twice or out of order, not theirs (G8). */
export async function eventFaults(
  query: Query,
  userId: string,
  heard: readonly string[],
  last: bigint,
): Promise<{ readonly lost: number; readonly doubled: number; readonly foreign: number }> {
  const rows = await query('SELECT id FROM events WHERE user_id = $1 AND id <= $2 ORDER BY id', [userId, String(last)]);
  const received = heard.filter((id) => BigInt(id) <= last);
  const outbox = rows.map((row) => EventRow.parse(row).id);
  const told = new Set(received);
  const first = outbox.indexOf(received[0] ?? '');
  const expected = first < 0 ? outbox : outbox.slice(first);
  const theirs = new Set(outbox);
  return {
    lost: expected.filter((id) => !told.has(id)).length,
    doubled: received.filter((id, i) => i > 0 && BigInt(id) <= BigInt(received[i - 1] ?? 0)).length,
    foreign: received.filter((id) => !theirs.has(id)).length,
  };
}

/** Bytes that the ledger has for a tunnel, as its visitors sent them and as they came back (G4). */
export async function ledgerOf(query: Query, tunnelId: string): Promise<{ readonly in: number; readonly out: number }> {
  const [row] = await query(
    `SELECT coalesce(sum(bytes_in), 0) AS bytes_in, coalesce(sum(bytes_out), 0) AS bytes_out
     FROM tunnel_usage WHERE tunnel_id = $1`,
    [tunnelId],
  );
  const { bytes_in, bytes_out } = UsageRow.parse(row);
  return { in: bytes_in, out: bytes_out };
}
