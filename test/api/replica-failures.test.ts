/** Replicas that lag, die or hang: no read fails or waits, each client sees its own writes, and the replica comes back. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { startBackend } from '../harness/backend.js';
import { ownPort } from '../harness/own-ports.js';
import { until } from '../harness/until.js';
import { ReplicatedPlatform } from './replicated-platform.js';

/** What a read may take while a replica hangs: our patience with it, and a busy machine. The driver would wait for 3 s. */
const HELD_UP_MS_MAX = 2_500;
/** For what goes as fast as the machine does. */
const BUSY_MS = 30_000;

let platform: ReplicatedPlatform;

beforeAll(async () => {
  platform = await ReplicatedPlatform.start();
});

afterAll(async () => {
  await platform?.stop();
});

/** Readers, and one who writes on one backend and reads on the other; until `stop`. */
async function startLoad() {
  const [reader, writer] = [await platform.newOwner(), await platform.newOwner()];
  for (const i of [0, 1]) await until(() => platform.isReadFromReplica(reader, i), 'a read of the replica', BUSY_MS);
  const failed: number[] = [];
  const notOwnWrite: string[] = [];
  const seen = { reads: 0, writes: 0, failed, notOwnWrite, slowestMs: 0 };
  let wanted = true;
  const readers = Array.from({ length: 6 }, async (_, i) => {
    while (wanted) {
      const began = performance.now();
      const { status } = await reader.api.at(platform.at(i).url).get('/api/v1/tunnels');
      seen.slowestMs = Math.max(seen.slowestMs, performance.now() - began);
      seen.reads++;
      if (status !== 200) seen.failed.push(status);
    }
  });
  const write = async () => {
    for (; wanted; seen.writes++) {
      const name = `write-${seen.writes}`;
      const { status } = await writer.api.at(platform.at(seen.writes).url).patch(writer.path, { name });
      if (status !== 200) seen.failed.push(status);
      if ((await platform.nameInList(writer, seen.writes + 1)) !== name) seen.notOwnWrite.push(name);
    }
  };
  const all = Promise.all([...readers, write()]);
  const stop = async () => {
    wanted = false;
    await all;
    return seen;
  };
  await until(() => seen.reads > 100 && seen.writes > 10, 'reads and writes', BUSY_MS);
  return { reader, seen, stop };
}

const replicaState = async (i: number) =>
  (await new Api(platform.at(i).url).get('/health/ready')).body.details.replicas;
const metrics = async (i: number) => (await new Api(platform.at(i).url).get('/metrics')).text;

describe.each([
  {
    what: 'lags',
    reason: 'it lags',
    fail: () => platform.replica.pauseReplay(),
    mend: () => platform.replica.resumeReplay(),
  },
  {
    what: 'is killed',
    reason: '',
    fail: () => platform.replica.kill9(),
    mend: () => platform.replica.startAgain(),
  },
  {
    what: 'hangs',
    reason: '',
    fail: () => platform.replica.freeze(),
    mend: () => platform.replica.thaw(),
  },
])('a replica that $what', ({ reason, fail, mend }) => {
  it(
    'fails no read, holds none up, shows every client its own writes, and comes back',
    { timeout: 180_000 },
    async () => {
      const { reader, seen, stop } = await startLoad();
      const saidInUse = [0, 1].map((i) => platform.timesSaid(i, 'replica in use'));
      const saidLeftOut = [0, 1].map((i) => platform.timesSaid(i, 'replica left out'));
      seen.slowestMs = 0;
      await fail();
      for (const i of [0, 1]) {
        await until(
          () => platform.timesSaid(i, 'replica left out') > (saidLeftOut[i] ?? 0),
          'the log says that it is left out',
          BUSY_MS,
        );
        expect(platform.at(i).output()).toContain(`"reason":"${reason}`);
        expect(await replicaState(i)).toEqual({ status: 'degraded', message: '0 of 1 in use' });
        expect((await new Api(platform.at(i).url).get('/health/ready')).status).toBe(200);
        expect(await metrics(i)).toMatch(/bore_database_replicas\{state="left_out"\} 1/);
      }
      const before = { ...seen };
      await until(
        () => seen.reads > before.reads + 200 && seen.writes > before.writes + 20,
        'reads without it',
        BUSY_MS,
      );
      const { slowestMs } = seen;
      await mend();
      for (const i of [0, 1]) {
        await until(() => platform.timesSaid(i, 'replica in use') > (saidInUse[i] ?? 0), 'it is back', BUSY_MS);
        await until(async () => (await replicaState(i)).status === 'up', 'health says so', BUSY_MS);
      }
      const { failed, notOwnWrite } = await stop();
      expect({ failed, notOwnWrite }).toEqual({ failed: [], notOwnWrite: [] });
      expect(slowestMs).toBeLessThan(HELD_UP_MS_MAX);
      for (const i of [0, 1])
        await until(() => platform.isReadFromReplica(reader, i), 'a read of the replica', BUSY_MS);
    },
  );
});

it('a backend starts, and works, with replicas that are none', async () => {
  const dead = `127.0.0.1:${await ownPort()}`;
  const primaryItself = `127.0.0.1:${platform.postgres.address.port}`;
  const lonely = await startBackend({
    database: platform.postgres,
    env: { DB_REPLICA_HOSTS: `${dead},${primaryItself}` },
  });
  const { api } = await platform.newOwner();
  expect((await api.at(lonely.url).get('/api/v1/tunnels')).body.items).toHaveLength(1);
  expect((await new Api(lonely.url).get('/health/ready')).body.details.replicas.message).toBe('0 of 2 in use');
  expect(lonely.output()).not.toContain('replica in use');
  await lonely.stop();
});
