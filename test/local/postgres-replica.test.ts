import { afterAll, beforeAll, expect, it } from 'vitest';

import { OwnPostgres } from '../harness/own-postgres.js';
import { OwnReplica } from '../harness/own-replica.js';
import { until } from '../harness/until.js';

let primary: OwnPostgres;
let replica: OwnReplica | undefined;

beforeAll(async () => {
  primary = await OwnPostgres.start();
  await primary.query('CREATE TABLE lines (n int)');
});

afterAll(async () => {
  await replica?.stop();
  await primary?.drop();
});

const count = async (at: OwnPostgres | OwnReplica | undefined) =>
  (await at?.query('SELECT count(*)::int AS n FROM lines'))?.[0]?.['n'];

it('a replica that is copied while the primary is written to follows it, also over its own kill -9', async () => {
  const writing = (async () => {
    for (let n = 0; n < 300; n++) await primary.query('INSERT INTO lines VALUES ($1)', [n]);
  })();
  replica = await OwnReplica.start(primary, 'replica_1');
  await writing;
  await until(async () => (await count(replica)) === 300, 'all lines are there');
  await replica.kill9();
  await primary.query('INSERT INTO lines VALUES (300)');
  await replica.startAgain();
  await until(async () => (await count(replica)) === 301, 'what it missed is there');
  const slots = await primary.query(
    `SELECT slot_name, active, current_setting('max_slot_wal_keep_size') AS keeps FROM pg_replication_slots`,
  );
  expect(slots).toEqual([{ slot_name: 'replica_1', active: true, keeps: '1GB' }]);
  await expect(replica.query('DELETE FROM lines')).rejects.toThrow(/read-only transaction/);
});

it('takes writes when it is promoted', async () => {
  await replica?.promote();
  await replica?.query('INSERT INTO lines VALUES (301)');
  expect(await count(replica)).toBe(302);
  expect(await count(primary)).toBe(301);
});
