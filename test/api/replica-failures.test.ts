/** Replicas that lag, die or hang: no read fails or waits, each client sees its own writes, and the replica comes back. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { heldUp } from '../harness/held-up.js';
import { ownPort } from '../harness/own-ports.js';
import { until } from '../harness/until.js';
import { type Owner, ReplicatedPlatform } from './replicated-platform.js';

/** What a read may take while a replica hangs: our patience with it, and a busy machine. The driver would wait for 3 s. */
const HELD_UP_MS_MAX = 2_500;
/** For what goes as fast as the machine does. */
const BUSY_MS = 90_000;

let platform: ReplicatedPlatform;

beforeAll(async () => {
  platform = await ReplicatedPlatform.start();
});

afterAll(async () => {
  await platform?.stop();
});

/** Readers, and one who writes on one backend and reads on the other. */
class Load {
  reads = 0;
  writes = 0;
  slowestMs = 0;
  readonly failed: number[] = [];
  readonly notOwnWrite: string[] = [];
  private wanted = true;
  private readonly running: Promise<unknown>;

  constructor(
    private readonly reader: Owner,
    private readonly writer: Owner,
  ) {
    const readers = Array.from({ length: 6 }, (_, i) => this.read(i));
    this.running = Promise.all([...readers, this.write()]);
    // who stops it hears of a failure; until then it is nobody's
    this.running.catch(() => undefined);
  }

  async stop(): Promise<void> {
    this.wanted = false;
    await this.running;
  }

  /** So many more reads and writes, from now on. */
  async goesOn(): Promise<void> {
    const { reads, writes } = this;
    await until(() => this.reads > reads + 200 && this.writes > writes + 20, 'reads and writes', BUSY_MS);
  }

  private async read(i: number): Promise<void> {
    while (this.wanted) {
      const { url } = platform.at(i);
      const { answer, ms } = await heldUp(url, () => this.reader.api.at(url).get('/api/v1/tunnels'));
      this.slowestMs = Math.max(this.slowestMs, ms);
      this.reads++;
      if (answer.status !== 200) this.failed.push(answer.status);
    }
  }

  private async write(): Promise<void> {
    for (; this.wanted; this.writes++) {
      const name = `write-${this.writes}`;
      const { status } = await this.writer.api.at(platform.at(this.writes).url).patch(this.writer.path, { name });
      if (status !== 200) this.failed.push(status);
      if ((await platform.nameInList(this.writer, this.writes + 1)) !== name) this.notOwnWrite.push(name);
    }
  }
}

/** What backends have said since then. */
const saidSince = (then: readonly { at: Backend; length: number }[]) =>
  then.map(({ at, length }) => at.output().slice(length));

describe.each([
  {
    what: 'lags',
    reason: /it lags/,
    fail: () => platform.replica.pauseReplay(),
    mend: () => platform.replica.resumeReplay(),
  },
  {
    what: 'is killed',
    reason: /terminat|ECONN/,
    fail: () => platform.replica.kill9(),
    mend: () => platform.replica.startAgain(),
  },
  {
    what: 'hangs',
    reason: /timeout/,
    fail: () => platform.replica.freeze(),
    mend: () => platform.replica.thaw(),
  },
])('a replica that $what', ({ reason, fail, mend }) => {
  it(
    'fails no read, holds none up, shows every client its own writes, and comes back',
    { timeout: 400_000 },
    async () => {
      const reader = await platform.newOwner();
      for (const i of [0, 1])
        await until(() => platform.isReadFromReplica(reader, i), 'a read of the replica', BUSY_MS);
      const listen = () => [0, 1].map((i) => ({ at: platform.at(i), length: platform.at(i).output().length }));
      const isSaid = (said: string) =>
        [...said.matchAll(/"reason":"([^"]*)","msg":"replica left out"/g)].some(([, why = '']) => reason.test(why));
      /** Resolves when both leave it out, with whether they do so for that. */
      const leftOutForThat = async () => {
        for (const i of [0, 1]) await until(() => platform.isReplicaInUse(i), 'it is in use', BUSY_MS);
        const failed = listen();
        await fail();
        const isLeftOut = (said: string) => said.includes('"msg":"replica left out"');
        await until(() => saidSince(failed).every(isLeftOut), 'both leave it out', BUSY_MS);
        return saidSince(failed).every(isSaid);
      };
      const load = new Load(reader, await platform.newOwner());
      try {
        await load.goesOn();
        load.slowestMs = 0;
        let mended = listen();
        try {
          // a look that was late on a busy machine leaves it out for a reason of its own, and then there is no other
          for (let i = 0; !(await leftOutForThat()); i++) {
            expect(i, 'times that it was left out for something else').toBeLessThan(2);
            await mend();
          }
          for (const i of [0, 1]) {
            const ready = await new Api(platform.at(i).url).get('/health/ready');
            expect(ready.status).toBe(200);
            expect(ready.body.details.replicas).toEqual({ status: 'degraded', message: '0 of 1 in use' });
            const metrics = await new Api(platform.at(i).url).get('/metrics');
            expect(metrics.text).toContain('bore_database_replicas{state="left_out"} 1');
          }
          await load.goesOn();
          expect(load.slowestMs).toBeLessThan(HELD_UP_MS_MAX);
        } finally {
          mended = listen();
          await mend();
        }
        const isBack = (said: string) => said.includes('replica in use');
        await until(() => saidSince(mended).every(isBack), 'both have it back', BUSY_MS);
        await load.goesOn();
      } finally {
        await load.stop();
      }
      expect({ failed: load.failed, notOwnWrite: load.notOwnWrite }).toEqual({ failed: [], notOwnWrite: [] });
      for (const i of [0, 1]) {
        await until(() => platform.isReadFromReplica(reader, i), 'a read of the replica', BUSY_MS);
        const { details } = (await new Api(platform.at(i).url).get('/health/ready')).body;
        expect(details.replicas).toEqual({ status: 'up' });
      }
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
