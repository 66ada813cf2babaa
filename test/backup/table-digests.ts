import type { TestDatabase } from '../harness/database.js';

/** What heartbeats, jobs and the restore itself change (after-restore.sql.ts): left out of a comparison. */
const CHANGING: Readonly<Record<string, readonly string[]>> = {
  servers: [
    'state',
    'instance_id',
    'lease_until',
    'heartbeat_at',
    'heartbeat_sequence',
    'lost_at',
    'connections',
    'bandwidth_mbps',
  ],
  tunnels: ['idle_deadline', 'version'],
  auth_sessions: ['ended_at'],
  fleet_figures: ['measured_at'],
};
/** About processes that run, and of no use to others. */
const NOT_COMPARED = new Set(['backends', 'breaker_views', 'account_writes']);

/** Of each table: how many rows, and one checksum over all of them, whatever their order. */
export async function digestsOf(database: Pick<TestDatabase, 'query'>): Promise<Record<string, string>> {
  const tables = await database.query(
    `SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1`,
  );
  const digests: Record<string, string> = {};
  for (const { name } of tables) {
    const table = String(name);
    if (NOT_COMPARED.has(table)) continue;
    const left = (CHANGING[table] ?? []).map((column) => ` - '${column}'`).join('');
    const [row] = await database.query(
      `SELECT count(*) || ' ' || coalesce(md5(string_agg(line, E'\\n' ORDER BY line)), '') AS digest
       FROM (SELECT (to_jsonb(t)${left})::text AS line FROM "${table}" t) lines`,
    );
    digests[table] = String(row?.['digest']);
  }
  return digests;
}
