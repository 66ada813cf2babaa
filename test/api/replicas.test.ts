/** Reads that go to a streaming replica, and those that must not. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { startBackend } from '../harness/backend.js';
import { createDatabase } from '../harness/database.js';
import { until } from '../harness/until.js';
import { ReplicatedPlatform } from './replicated-platform.js';

const ROUNDS = 200;
/** How long a backend waits for a replica (src/platform/database/replica.ts). */
const PATIENCE_MS = 500;

let platform: ReplicatedPlatform;

beforeAll(async () => {
  platform = await ReplicatedPlatform.start();
});

afterAll(async () => {
  await platform?.stop();
});

/** Why a backend left the replica out, but for samples that came late: those say that the machine is busy. */
const leftOutFor = (i: number): string[] =>
  [
    ...platform
      .at(i)
      .output()
      .matchAll(/"reason":"([^"]*)","msg":"replica left out"/g),
  ]
    .map(([, reason = '']) => reason)
    .filter((reason) => !/^Error: .*timeout/i.test(reason));

async function newestAction(admin: Api): Promise<unknown> {
  return (await admin.get('/api/v1/admin/audit?limit=1')).body.items[0].action;
}

describe('with a replica', () => {
  afterEach(async () => {
    await platform.replica.resumeReplay();
    await platform.endDelay();
  });

  it('lists of an account that has written nothing lately come from it, on every backend; one tunnel does not', async () => {
    const owner = await platform.newOwner();
    const leftOutBefore = leftOutFor(0);
    for (const i of [0, 1]) await until(() => platform.isReadFromReplica(owner, i), 'a read of the replica');
    const read = await platform.replica.query(
      `SELECT DISTINCT query ~ '^\\s*SELECT' AS reads FROM pg_stat_activity WHERE application_name = 'bore-backend'`,
    );
    expect(read).toEqual([{ reads: true }]);

    // its ETag is compared with the primary's row when it is changed
    await platform.replica.pauseReplay();
    await platform.renameOnPrimary(owner, 'new');
    expect((await owner.api.get(owner.path)).body.name).toBe('new');
    // one that is not answered in half a second goes to the primary
    await until(async () => (await platform.nameInList(owner, 0)) !== 'new', 'a list of the replica');
    await platform.replica.resumeReplay();

    // none of what goes there is a statement that a replica refuses, or is slow at
    const admin = await platform.admin();
    const ofOwner = ['', '/connections', '/sessions', '/usage'].map((path) => `${owner.path}${path}`);
    for (const path of [...ofOwner, '/api/v1/tunnels', '/api/v1/tunnels?sort=name', '/api/v1/capacity'])
      expect((await owner.api.get(path)).status).toBe(200);
    await until(() => platform.isReadFromReplica(owner, 0), 'a read of the replica');
    for (const path of ['users', 'tunnels', 'audit', 'servers', 'quarantine', 'fleet', 'capacity'])
      expect((await admin.get(`/api/v1/admin/${path}`)).status, path).toBe(200);
    expect(leftOutFor(0)).toEqual(leftOutBefore);
  });

  it(
    `a client reads its own writes: ${ROUNDS} on one backend, read on the other, from a replica that is late`,
    { timeout: 120_000 },
    async () => {
      const [writer, other] = [await platform.newOwner(), await platform.newOwner()];
      await until(() => platform.isReadFromReplica(other, 0), 'the other account is read from the replica');
      const leftOut = () => [...leftOutFor(0), ...leftOutFor(1)];
      const leftOutBefore = leftOut();
      await platform.delayReplica('1500ms');
      let stale = 0;
      let [othersInTime, othersFromReplica] = [0, 0];
      for (let round = 0; round < ROUNDS; round++) {
        const name = `round-${round}`;
        expect((await writer.api.at(platform.at(round).url).patch(writer.path, { name })).status).toBe(200);
        if ((await platform.nameInList(writer, round + 1)) !== name) stale++;
        if (round % 10 !== 0) continue;
        await platform.renameOnPrimary(other, name);
        const timesBefore = platform.timesSaid(round + 1, 'replica left out');
        const wasInUse = await platform.isReplicaInUse(round + 1);
        const began = performance.now();
        const shown = await platform.nameInList(other, round + 1);
        // a replica that takes longer is right not to be waited for, and the machine may be busy
        if (performance.now() - began > PATIENCE_MS) continue;
        // nor is one asked that is left out because a sample came late
        const isLeftOut = platform.timesSaid(round + 1, 'replica left out') > timesBefore;
        if (!wasInUse || isLeftOut || !(await platform.isReplicaInUse(round + 1))) continue;
        othersInTime++;
        if (shown !== name) othersFromReplica++;
      }
      expect({ stale, othersFromReplica }).toEqual({ stale: 0, othersFromReplica: othersInTime });
      expect(othersInTime).toBeGreaterThan(ROUNDS / 20);
      expect(leftOut()).toEqual(leftOutBefore);
      // what a login made, too
      const fresh = await platform.newOwner();
      expect(await platform.nameInList(fresh, 1)).toBe('made');
      await platform.endDelay();
      await until(() => platform.isReadFromReplica(writer, 1), 'the writer is read from the replica again');
    },
  );

  it('an API key and a login of one account see what the other wrote', async () => {
    const owner = await platform.newOwner();
    const scopes = ['tunnels:read', 'tunnels:write'];
    const { body } = await owner.api.post('/api/v1/auth/api-keys', { name: 'key', scopes });
    const byKey = { ...owner, api: new Api(platform.at(0).url).withToken(body.key) };
    await until(() => platform.isReadFromReplica(byKey, 1), 'the key is read from the replica');
    await platform.delayReplica('1500ms');
    for (const [from, to] of [
      [byKey, owner],
      [owner, byKey],
      [byKey, byKey],
    ] as const) {
      const name = `by-${performance.now()}`.replace('.', '-').slice(0, 30);
      expect((await from.api.at(platform.at(0).url).patch(owner.path, { name })).status).toBe(200);
      expect(await platform.nameInList(to, 1)).toBe(name);
    }
  });

  it('an administrator sees at once what they did to others: accounts, tunnels, and the audit log', async () => {
    const owner = await platform.newOwner();
    const admin = (await platform.admin()).at(platform.at(0).url);
    const other = admin.at(platform.at(1).url);
    const listed = async () => (await other.get(`/api/v1/admin/users?email=${owner.email}`)).body.items[0];
    await until(() => platform.isReadFromReplica(owner, 1), 'a read of the replica');
    await platform.delayReplica('1500ms');
    const user = `/api/v1/admin/users/${owner.userId}`;
    for (const plan of ['pro', 'enterprise', 'free']) {
      expect((await admin.patch(user, { plan })).status).toBe(200);
      expect((await listed()).plan).toBe(plan);
    }
    // a refused change counts as one: what is read after it is what it was compared with
    await platform.postgres.query('UPDATE users SET name = $2, version = version + 1 WHERE id = $1', [
      owner.userId,
      'New',
    ]);
    const refused = await admin.send('PATCH', user, '{"plan":"pro"}', {
      'content-type': 'application/json',
      'if-match': '"0-0000000000000000"',
    });
    expect(refused.status).toBe(412);
    expect((await listed()).name).toBe('New');

    expect((await admin.delete(`/api/v1/admin/tunnels/${owner.tunnelId}`)).status).toBe(204);
    const open = await other.get(`/api/v1/admin/tunnels?userId=${owner.userId}`);
    expect(open.body.items).toEqual([]);
    expect(await newestAction(other)).toBe('tunnel.closed');
  });

  it('a GET that writes counts as a write: who exported evidence finds it in the audit log', async () => {
    const owner = await platform.newOwner();
    const admin = await platform.admin();
    const asSeen = { ...owner, api: admin, list: `/api/v1/admin/tunnels?userId=${owner.userId}` };
    await until(() => platform.isReadFromReplica(asSeen, 1), 'the administrator is read from the replica');
    await platform.replica.pauseReplay();
    const window = 'from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z';
    expect((await admin.get(`/api/v1/admin/evidence?serverId=s1&port=10000&${window}`)).status).toBe(200);
    expect(await newestAction(admin.at(platform.at(1).url))).toBe('evidence.exported');
  });

  it('an account whose change is pending, or of which nobody knows, is read from the primary', async () => {
    const owner = await platform.newOwner();
    await until(() => platform.isReadFromReplica(owner, 0), 'a read of the replica');
    const setPending = (n: number) =>
      platform.postgres.query('UPDATE account_writes SET pending = $1 WHERE position > 0', [n]);
    await setPending(1);
    expect(await platform.isReadFromReplica(owner, 0)).toBe(false);
    await setPending(0);
    await until(() => platform.isReadFromReplica(owner, 0), 'a read of the replica again');
    // as after a crash of PostgreSQL, until a backend sets the floor anew
    const table = await platform.postgres.hold('BEGIN', 'TRUNCATE account_writes');
    // before the new floor can come there
    await platform.replica.pauseReplay();
    const read = platform.isReadFromReplica(owner, 0);
    await table.commit();
    expect(await read).toBe(false);
    await until(() => platform.isReadFromReplica(owner, 0), 'a read of the replica, with the new floor');
  });

  it('a change whose backend has died keeps its account on the primary for an hour, however many follow', async () => {
    const { api, userId, path } = await platform.newOwner();
    const rename = async (name: string) => expect((await api.patch(path, { name })).status).toBe(200);
    const row = async () => {
      const rows = await platform.postgres.query(
        `SELECT pending, now() - at > interval '59 minutes' AS old FROM account_writes WHERE account_id = $1`,
        [userId],
      );
      return rows[0];
    };
    expect(await row()).toEqual({ pending: 0, old: false });
    await platform.postgres.query(
      `UPDATE account_writes SET pending = 1, at = now() - interval '59 minutes 1 second' WHERE account_id = $1`,
      [userId],
    );
    await rename('one');
    await rename('two');
    // a minute later it is forgotten with the row
    expect(await row()).toEqual({ pending: 1, old: true });
    await platform.postgres.query('UPDATE account_writes SET pending = 0 WHERE account_id = $1', [userId]);
    await rename('three');
    expect(await row()).toEqual({ pending: 0, old: false });
  });
});

it('without replicas nothing is marked, asked or shown', async () => {
  const database = await createDatabase();
  const backend = await startBackend({ database });
  const api = new Api(backend.url);
  const { body } = await api.post('/api/v1/auth/signup', { email: 'a@example.com', password: 'correct horse battery' });
  expect((await api.withToken(body.accessToken).post('/api/v1/auth/logout-all', undefined)).status).toBe(204);
  expect(await database.query('SELECT FROM account_writes')).toEqual([]);
  expect(Object.keys((await api.get('/health/ready')).body.details)).not.toContain('replicas');
  expect((await api.get('/metrics')).text).not.toMatch(/^bore_database_replicas\{/m);
  await backend.stop();
  await database.drop();
});
