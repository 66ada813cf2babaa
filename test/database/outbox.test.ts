import { randomUUID } from 'node:crypto';

import fc from 'fast-check';
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { somebodyWaits } from '../api/transaction.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { until } from '../harness/until.js';

let database: TestDatabase;
const clients: pg.Client[] = [];
const users = [randomUUID(), randomUUID(), randomUUID()];

beforeAll(async () => {
  database = await createDatabase();
  for (let i = 0; i < 6; i++) {
    const client = new pg.Client({ ...database.address });
    await client.connect();
    clients.push(client);
  }
  for (const server of ['s1', 's2']) {
    await database.query(
      `INSERT INTO servers (id, host, port, location, max_tunnels, max_bandwidth_mbps) VALUES ($1::text, $1::text || '.example.com', 7835, 'eu', 1000, 1000)`,
      [server],
    );
  }
  for (const user of users) {
    await database.query(
      `INSERT INTO users (id, email, password_hash) VALUES ($1::uuid, $1::text || '@example.com', '-')`,
      [user],
    );
  }
});

afterAll(async () => {
  await Promise.all(clients.map((client) => client.end()));
  await database?.drop();
});

beforeEach(() => database.query('DELETE FROM events'));

let port = 1;

async function newTunnel(client: pg.Client | TestDatabase, userId = users[0], server = 's1'): Promise<string> {
  const id = randomUUID();
  await client.query(
    `INSERT INTO tunnels (id, user_id, server_id, port, sealed_key) VALUES ($1, $2, $3, $4, 'sealed-key')`,
    [id, userId, server, port++],
  );
  return id;
}

const eventsOf = (tunnelId: string) =>
  database.query('SELECT type, user_id, data FROM events WHERE tunnel_id = $1 ORDER BY id', [tunnelId]);
const typesOf = async (tunnelId: string) => (await eventsOf(tunnelId)).map(({ type }) => type);

describe('the outbox', () => {
  it.each([
    ["state = 'active', epoch = epoch + 1", ['tunnel.active']],
    ["state = 'offline'", ['tunnel.offline']],
    ["state = 'closed', closed_at = now(), close_reason = 'deleted'", ['tunnel.closed']],
    ["name = 'blog'", ['tunnel.updated']],
    [`labels = '{"team":"billing"}'`, ['tunnel.updated']],
    ['settings_version = settings_version + 1', ['tunnel.updated']],
    ["expires_at = now() + interval '1 hour'", ['tunnel.updated']],
    ['relocate = true', ['tunnel.updated']],
    ['port = 9999', ['tunnel.relocated']],
    ["port = 9998, state = 'offline', name = 'moved'", ['tunnel.relocated', 'tunnel.updated', 'tunnel.offline']],
    ["sealed_key = 'other'", []],
    ["idle_deadline = now(), client_address = '127.0.0.9'", []],
  ])('gets an event for each change that an owner may see: %s', async (change, types) => {
    const id = await newTunnel(database);
    // what happens in the millisecond of its making belongs to it, and a test is as fast as that
    await database.query(`UPDATE tunnels SET created_at = created_at - interval '1 second' WHERE id = $1`, [id]);
    await database.query(`UPDATE tunnels SET ${change} WHERE id = $1`, [id]);
    expect(await typesOf(id)).toEqual(['tunnel.created', ...types]);
    await database.query(`UPDATE tunnels SET state = 'closed', closed_at = now() WHERE id = $1`, [id]);
  });

  it('gets one when another client takes over a tunnel that is active', async () => {
    const id = await newTunnel(database);
    for (const epoch of [1, 2]) {
      await database.query(`UPDATE tunnels SET state = 'active', epoch = $2 WHERE id = $1`, [id, epoch]);
    }
    await database.query(`UPDATE tunnels SET state = 'active', epoch = 2 WHERE id = $1`, [id]);
    expect(await typesOf(id)).toEqual(['tunnel.created', 'tunnel.active', 'tunnel.active']);
  });

  it('says where the tunnel is and how it stands, and nothing of its key', async () => {
    const id = await newTunnel(database, users[1]);
    await database.query(
      `UPDATE tunnels SET state = 'active', epoch = 1, client_address = '192.0.2.1', connected_at = '2026-01-02 03:04:05.678Z' WHERE id = $1`,
      [id],
    );
    const [, active] = await eventsOf(id);
    expect(active).toEqual({
      type: 'tunnel.active',
      user_id: users[1],
      data: {
        name: null,
        labels: {},
        state: 'active',
        closeReason: null,
        serverId: 's1',
        host: 's1.example.com',
        port: port - 1,
        clientAddress: '192.0.2.1',
        connectedAt: '2026-01-02T03:04:05.678Z',
        expiresAt: null,
      },
    });
  });

  it('gets one event of a tunnel that is made as one that may be moved', async () => {
    const [client] = clients;
    if (!client) throw new Error('no client');
    await client.query('BEGIN');
    const id = await newTunnel(client);
    await client.query('UPDATE tunnels SET relocate = true WHERE id = $1', [id]);
    await client.query('COMMIT');
    expect(await typesOf(id)).toEqual(['tunnel.created']);
  });

  it('gets nothing from a transaction that is rolled back', async () => {
    const [client] = clients;
    if (!client) throw new Error('no client');
    await client.query('BEGIN');
    const id = await newTunnel(client);
    await client.query('ROLLBACK');
    expect(await typesOf(id)).toEqual([]);
  });
});

describe('ids of events', () => {
  it('are in the order of commits: a transaction that began first and commits last has the higher id', async () => {
    const [first, second] = clients;
    if (!first || !second) throw new Error('no clients');
    await first.query('BEGIN');
    const early = await newTunnel(first);
    // another user's, on another server: neither waits for the other
    const late = await newTunnel(second, users[1], 's2');
    expect(await typesOf(late)).toEqual(['tunnel.created']);
    await first.query('COMMIT');
    const order = await database.query('SELECT tunnel_id FROM events ORDER BY id');
    expect(order.map(({ tunnel_id }) => tunnel_id)).toEqual([late, early]);
  });

  it('become visible in their order, although a commit that has taken one is slow', async () => {
    const [holder, slow, quick] = clients;
    if (!holder || !slow || !quick) throw new Error('no clients');
    // behind our trigger in the same commit: what a slow disk or a busy machine does in between
    await database.query(`
      CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$;
      CREATE CONSTRAINT TRIGGER wait_for_test AFTER INSERT ON tunnels DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.server_id = 's1') EXECUTE FUNCTION wait_for_test()`);
    await holder.query('SELECT pg_advisory_lock(42)');
    const one = newTunnel(slow);
    await somebodyWaits(database);
    const other = newTunnel(quick, users[1], 's2');
    const waiting = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
    await Promise.race([other, until(async () => (await database.query(waiting)).length > 1, 'both wait')]);
    const visible = async () =>
      (await database.query('SELECT tunnel_id FROM events ORDER BY id')).map((row) => row['tunnel_id']);
    const before = await visible();
    await holder.query('SELECT pg_advisory_unlock(42)');
    await Promise.all([one, other]);
    await database.query('DROP TRIGGER wait_for_test ON tunnels');
    // whoever has read `before` and then asks for what is behind it gets the rest
    const after = await visible();
    expect(after).toHaveLength(2);
    expect(after.slice(0, before.length)).toEqual(before);
  });

  it('show a reader that asks for what is behind its last one everything, once, and in each tunnel’s order', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            // statements on tunnels in one transaction, as heartbeats and jobs have them: many tunnels, in any order
            steps: fc.array(
              fc.record({ tunnel: fc.nat(7), many: fc.boolean(), state: fc.constantFrom('active', 'offline') }),
              { minLength: 1, maxLength: 4 },
            ),
            rollback: fc.boolean(),
          }),
          { minLength: 30, maxLength: 60 },
        ),
        fc.infiniteStream(fc.nat(3)),
        async (transactions, pauses) => {
          await database.query('DELETE FROM events');
          const tunnels: string[] = [];
          for (let i = 0; i < 8; i++) tunnels.push(await newTunnel(database, users[i % 3], i % 2 ? 's1' : 's2'));
          const written = new Map<string, number>();
          let epoch = 0;
          let done = false;

          const write = async (client: pg.Client, mine: typeof transactions) => {
            for (const { steps, rollback } of mine) {
              await client.query('BEGIN');
              // the order of locks that all of ours keep: without it the tunnels' own rows make circles
              await client.query(`SELECT FROM servers ORDER BY id FOR NO KEY UPDATE`);
              for (const { tunnel, many, state } of steps) {
                const ids = many ? tunnels.slice(tunnel) : [tunnels[tunnel]];
                await client.query(
                  `UPDATE tunnels SET state = $2::text::tunnel_state, epoch = CASE WHEN $2 = 'active' THEN $3 ELSE epoch END WHERE id = ANY ($1)`,
                  [ids, state, ++epoch],
                );
              }
              await client.query(rollback ? 'ROLLBACK' : 'COMMIT');
            }
          };
          const read = async (client: pg.Client) => {
            const seen: { id: number }[] = [];
            for (let last = false; ;) {
              const { rows } = await client.query(`SELECT id::int FROM events WHERE id > $1 ORDER BY id LIMIT 7`, [
                seen.at(-1)?.id ?? 0,
              ]);
              seen.push(...rows);
              if (rows.length === 0) {
                if (last) return seen.map(({ id }) => id);
                last = done;
              }
              for (let pause = pauses.next().value; pause > 0; pause--) await client.query('SELECT');
            }
          };

          const [readerA, readerB, ...writers] = clients;
          if (!readerA || !readerB) throw new Error('no clients');
          const reading = [read(readerA), read(readerB)];
          await Promise.all(
            writers.map((client, i) =>
              write(
                client,
                transactions.filter((_, n) => n % 4 === i),
              ),
            ),
          );
          done = true;
          const all = await database.query('SELECT id::int, tunnel_id, type, data FROM events ORDER BY id');
          for (const seen of await Promise.all(reading)) expect(seen).toEqual(all.map(({ id }) => id));

          // the last event of a tunnel says what its row says
          for (const { tunnel_id: id, data } of all) written.set(String(id), JSON.parse(JSON.stringify(data)).state);
          const rows = await database.query('SELECT id, state::text FROM tunnels WHERE id = ANY ($1)', [tunnels]);
          for (const { id, state } of rows) expect(written.get(String(id))).toBe(state);
        },
      ),
      { numRuns: 8, endOnFailure: true },
    );
  });

  it('are given out although many commit at once under all kinds of locks: none waits in a circle', async () => {
    const mine = await Promise.all(clients.map((_, i) => newTunnel(database, users[i % 3], i % 2 ? 's1' : 's2')));
    const before = await database.query(
      `SELECT deadlocks::int FROM pg_stat_database WHERE datname = current_database()`,
    );
    await Promise.all(
      clients.map(async (client, i) => {
        for (let round = 0; round < 40; round++) {
          await client.query('BEGIN');
          if (round % 3 === 0) await client.query('SELECT lock_capacity()');
          if (round % 2 === 0) await client.query(`SELECT FROM servers ORDER BY id FOR NO KEY UPDATE`);
          if (round % 5 === 0)
            await client.query('SELECT FROM users WHERE id = $1 FOR UPDATE', [users[(i + round) % 3]]);
          await client.query(`UPDATE tunnels SET settings_version = settings_version + 1 WHERE id = $1`, [mine[i]]);
          await client.query('COMMIT');
        }
      }),
    );
    expect(await database.query('SELECT count(*)::int AS n FROM events')).toEqual([{ n: clients.length * 41 }]);
    expect(
      await database.query(`SELECT deadlocks::int FROM pg_stat_database WHERE datname = current_database()`),
    ).toEqual(before);
  });
});

describe('forget_events', () => {
  it('looks at as many events as it may delete, however many more are old', async () => {
    const [client] = clients;
    if (!client) throw new Error('no client');
    await database.query(
      `INSERT INTO events (user_id, type, at, data) SELECT $1, 'tunnel.updated', now() - interval '80 hours', '{}' FROM generate_series(1, 5000)`,
      [users[0]],
    );
    // rows that this connection has read, by an index or without; those of transactions before, too, for up to a second
    const read = async () => {
      const { rows } = await client.query<{ read: number }>(
        `SELECT (pg_stat_get_xact_tuples_fetched('events'::regclass) + pg_stat_get_xact_tuples_returned('events'::regclass))::int AS read`,
      );
      return rows[0]?.read ?? NaN;
    };
    await client.query('BEGIN');
    const before = await read();
    await client.query('SELECT forget_events(72, 10)');
    const after = await read();
    await client.query('COMMIT');
    expect((await database.query('SELECT count(*)::int AS n FROM events'))[0]).toEqual({ n: 4_990 });
    expect(after - before).toBeLessThan(500);
  });

  it('deletes the oldest only, in batches, never across a younger one, and keeps the newest', async () => {
    const id = randomUUID();
    const add = (hoursAgo: number) =>
      database.query(
        `INSERT INTO events (user_id, tunnel_id, type, at, data) VALUES ($1, $1, 'tunnel.updated', now() - make_interval(hours => $2), '{}')`,
        [id, hoursAgo],
      );
    const ages = async () =>
      (
        await database.query(
          `SELECT round(extract(epoch FROM now() - at) / 3600)::int AS h FROM events WHERE tunnel_id = $1 ORDER BY id`,
          [id],
        )
      ).map(({ h }) => h);
    const forget = async (limit: number) =>
      (await database.query('SELECT forget_events(72, $1)::int AS n', [limit]))[0];
    for (const hours of [100, 99, 98, 1, 97]) await add(hours);
    expect(await forget(2)).toEqual({ n: 2 });
    expect(await forget(10)).toEqual({ n: 1 });
    expect(await ages()).toEqual([1, 97]);
    await database.query(`DELETE FROM events WHERE at > now() - interval '2 hours'`);
    await add(96);
    expect(await forget(10)).toEqual({ n: 1 });
    expect(await forget(10)).toEqual({ n: 0 });
    expect(await ages()).toEqual([96]);
  });
});
