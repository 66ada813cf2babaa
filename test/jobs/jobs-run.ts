import type { TestDatabase } from '../harness/database.js';
import { until } from '../harness/until.js';

/** Resolves when a job has run that began after the call: the lease of a server that is long gone has been noticed. */
export async function jobsRun(database: TestDatabase): Promise<void> {
  await database.query(
    `INSERT INTO servers (id, host, port, location, state, max_tunnels, max_bandwidth_mbps, lease_until)
     VALUES ('gone', 'gone', 1, 'x', 'online', 1, 1, now() - interval '1 hour')
     ON CONFLICT (id) DO UPDATE SET state = 'online'`,
  );
  const state = async () => (await database.query(`SELECT state::text FROM servers WHERE id = 'gone'`))[0]?.['state'];
  await until(async () => (await state()) === 'offline', 'a job runs', 30_000);
}
