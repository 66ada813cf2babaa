/** Receivers that fail, backends that are killed, a Redis that forgets, and conditions that come and go. */
import { createHash, randomBytes } from 'node:crypto';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { ControlPlane } from '../api/control-plane.js';
import type { Api } from '../harness/api.js';
import { scrape } from '../harness/metrics.js';
import { OwnRedis, redisMissing } from '../harness/own-redis.js';
import { until } from '../harness/until.js';
import { Receiver } from './receiver.js';

const MISSING = redisMissing();
const COOLDOWN_SECONDS = 900;
/** A lease of 15 s must end before another backend takes over, and the machine may be busy. */
const TAKEN_OVER_MS = 60_000;

/** The tests share backends, unless they end them or set them up in another way. */
let shared: ControlPlane;
let sharedHook: Receiver;
/** A second target of the shared backends, which never fails. */
let well: Receiver;
let plane: ControlPlane;
let admin: Api;
let hook: Receiver;
let closers: (() => unknown)[];
let serverNumber = 0;

const envFor = (receiver: Receiver): NodeJS.ProcessEnv => ({
  HOUSEKEEPING_INTERVAL_MS: '250',
  WEBHOOK_URLS: receiver.url('/hook'),
  WEBHOOK_SECRET: randomBytes(32).toString('hex'),
  WEBHOOK_ALLOW_INTERNAL: '127.0.0.0/8',
  NOTIFICATION_COOLDOWN_SECONDS: String(COOLDOWN_SECONDS),
});

beforeAll(async () => {
  [sharedHook, well] = [await Receiver.start(), await Receiver.start()];
  const env = {
    ...envFor(sharedHook),
    WEBHOOK_URLS: `${sharedHook.url('/hook')},${well.url('/well')}`,
    NOTIFICATION_RETENTION_DAYS: '2',
  };
  shared = await ControlPlane.start({ backends: 2, env });
});

afterAll(async () => {
  await shared?.stop();
  await sharedHook?.stop();
  await well?.stop();
});

beforeEach(async () => {
  closers = [];
  [plane, hook] = [shared, sharedHook];
  hook.forget();
  hook.usual = 200;
  well.forget();
  admin = await plane.admin();
  return async () => {
    for (const close of closers.toReversed()) await close();
  };
});

/** Backends of a test's own, and its own receiver. */
async function start({ backends = 1, env = {} }: { backends?: number; env?: NodeJS.ProcessEnv } = {}): Promise<void> {
  plane = await ControlPlane.start({ backends, env: { ...envFor(hook), ...env } });
  const own = plane;
  closers.push(() => own.stop());
  admin = await plane.admin();
}

async function newHook(): Promise<void> {
  const own = await Receiver.start();
  hook = own;
  closers.push(() => own.stop());
}

async function newServer() {
  const id = `eu-${++serverNumber}`;
  return { id, server: await plane.newServer(id, 12_000 + serverNumber * 100) };
}

const test = async (i = 0): Promise<string> =>
  (await admin.at(plane.url(i)).post('/api/v1/admin/notifications/test', undefined)).body.id;
const delivery = async (id: string) => {
  const { items } = (await admin.get('/api/v1/admin/notifications?limit=100')).body;
  const digest = createHash('sha256').update(hook.url('/hook')).digest('hex');
  const item = items.find((each: { id: string }) => each.id === id);
  return item?.deliveries.find(({ target }: { target: string }) => target === `webhook-${digest.slice(0, 12)}`);
};
const stateOf = async (id: string) => (await delivery(id))?.state;
/** Time passes for what waits for its next attempt. */
const attemptNow = () =>
  plane.database.query(`UPDATE notification_deliveries SET due_at = now() WHERE state = 'pending'`);
/** One has failed, and waits longer for its next attempt than any test takes, or until the next `attemptNow`. */
const failedWaits = async () =>
  (
    await plane.database.query(
      `UPDATE notification_deliveries SET due_at = now() + interval '1 hour' WHERE state = 'pending' AND failure IS NOT NULL RETURNING 1`,
    )
  ).length === 1;
/** Nothing is on its way to any target, or will be. */
const allSettled = () =>
  until(
    async () => {
      await attemptNow();
      const left = await plane.database.query(
        `SELECT FROM notifications WHERE NOT addressed UNION ALL SELECT FROM notification_deliveries WHERE state = 'pending'`,
      );
      return left.length === 0;
    },
    'nothing is on its way',
    30_000,
  );
const cooldownPasses = () =>
  plane.database.query(`UPDATE notification_conditions SET told_at = told_at - interval '${COOLDOWN_SECONDS} s'`);
const lose = (id: string) =>
  plane.database.query(`UPDATE servers SET lease_until = now() - interval '1 s' WHERE id = $1`, [id]);
const isLost = async (id: string) =>
  (await plane.database.query(`SELECT FROM servers WHERE state = 'offline' AND id = $1`, [id])).length > 0;
/**
 * Resolves when a look has begun after the call, and what it told has been sent. Three: what the first asks for may go with a look
 * that has begun before, what the second asks for may go before what the same look tells.
 */
async function looksPass(): Promise<void> {
  for (let i = 0; i < 3; i++) {
    const id = await test();
    await until(async () => (await stateOf(id)) === 'sent', 'a look', 30_000);
  }
}

describe('a receiver that fails', { timeout: 120_000 }, () => {
  it.each([
    ['answers 500', 500, 'answered 500'],
    ['redirects', 'http://127.0.0.1:1/', 'answered 307'],
    ['breaks off', 'resets', 'ECONNRESET'],
    ['never answers', 'hangs', 'timed out'],
  ] as const)('and %s gets the same message again, later', async (_, behaviour, failure) => {
    const other = await Receiver.start();
    closers.push(() => other.stop());
    hook.behaviours = [behaviour === 'http://127.0.0.1:1/' ? `http://127.0.0.1:${other.port}/` : behaviour];
    const id = await test();
    const failed = await until(
      async () => {
        const seen = await delivery(id);
        return seen?.failure ? seen : undefined;
      },
      'the failure is written down',
      30_000,
    );
    expect(failed).toMatchObject({ state: 'pending', attempts: 1, failure });
    // 10 s from the attempt
    const wait = Date.parse(failed.dueAt) - Date.now();
    expect(wait).toBeLessThan(10_500);
    expect(wait).toBeGreaterThan(0);
    expect(hook.arrived).toHaveLength(1);
    await attemptNow();
    await until(async () => (await stateOf(id)) === 'sent', 'the next attempt', 30_000);
    expect(hook.arrived.map(({ headers }) => headers['webhook-id'])).toEqual([id, id]);
    expect(await delivery(id)).toMatchObject({ state: 'sent', attempts: 2, failure: null });
    expect(other.arrived).toEqual([]);
  });

  it('for an hour is given up after eight attempts, and keeps nobody else waiting', async () => {
    hook.usual = 'hangs';
    const ids: string[] = [];
    for (let i = 0; i < 10; i++) ids.push(await test(i));
    await until(() => well.arrived.length === 10, 'the other receives all', 30_000);
    expect(new Set(well.arrived.map(({ headers }) => headers['webhook-id']))).toEqual(new Set(ids));
    // one at a time, whoever sends it
    expect(hook.openMax).toBe(1);
    hook.usual = 503;
    const delays: number[] = [];
    const first = () =>
      plane.database.query(
        `SELECT d.attempts, d.state, extract(epoch FROM d.due_at - now())::float AS wait FROM notification_deliveries d
       JOIN notifications n ON n.sequence = d.notification WHERE n.id = $1 AND d.failure IS NOT NULL AND d.claim_id IS NULL ORDER BY d.attempts DESC LIMIT 1`,
        [ids[0]],
      );
    await until(
      async () => {
        const [row] = await first();
        if (row && Number(row['attempts']) > delays.length) {
          delays.push(Math.round(Number(row['wait'])));
          await attemptNow();
        }
        return row?.['state'] === 'given_up';
      },
      'it is given up',
      100_000,
    );
    expect(delays.length).toBe(8);
    expect(
      delays.slice(0, 7).map((wait, i) => Math.abs(wait - ([10, 30, 60, 180, 480, 900, 1_800][i] ?? 0)) < 8),
    ).toEqual(Array.from({ length: 7 }, () => true));
    await until(
      () => plane.backends.some((backend) => backend.output().includes('notification given up')),
      'it is logged',
    );
    hook.usual = 200;
    await allSettled();
  });

  it('and is gone for good is not asked again', async () => {
    hook.behaviours = [410];
    const id = await test();
    await until(async () => (await stateOf(id)) === 'given_up', 'it is given up', 30_000);
    expect(await delivery(id)).toMatchObject({ attempts: 1, failure: 'answered 410' });
  });

  it('is told of one thing in order', async () => {
    hook.usual = 500;
    const { id, server } = await newServer();
    await lose(id);
    await until(() => hook.arrived.length === 1, 'the first attempt', 30_000);
    await server.register();
    hook.usual = 200;
    await until(failedWaits, 'the failure is booked');
    // another matter is told meanwhile, and then both in their order
    await looksPass();
    expect(hook.states('server.lost')).toEqual(['firing']);
    await attemptNow();
    await until(() => hook.states('server.lost').length === 3, 'the next attempt', 30_000);
    expect(hook.states('server.lost')).toEqual(['firing', 'firing', 'resolved']);
  });
});

describe('a backend', { timeout: 180_000 }, () => {
  it('that is stopped ends what it sends; that is killed has it sent by another', async () => {
    await newHook();
    await start({ backends: 2 });
    const ids: string[] = [];
    for (let i = 0; i < 20; i++) ids.push(await test(i));
    await until(() => hook.arrived.length > 0, 'some arrive', 30_000);
    admin = admin.at(plane.url(1));
    await plane.backends[0]?.stop();
    const sent = () => plane.database.query(`SELECT FROM notification_deliveries WHERE state = 'sent'`);
    await until(async () => (await sent()).length === 20, 'all are sent', 30_000);
    expect(hook.ids()).toEqual(ids.toSorted());

    hook.forget();
    hook.behaviours = ['hangs'];
    const id = await test(1);
    await until(() => hook.arrived.length === 1, 'it is being sent', 30_000);
    await plane.killAndRestart(1);
    await until(async () => (await stateOf(id)) === 'sent', 'another sends it', TAKEN_OVER_MS);
    expect(hook.arrived.map(({ headers }) => headers['webhook-id'])).toEqual([id, id]);
  });
});

describe('a Redis that is emptied', { timeout: 120_000 }, () => {
  it('loses no notification', async (context) => {
    if (MISSING) context.skip(MISSING);
    const redis = await OwnRedis.start();
    closers.push(() => redis.stop());
    await newHook();
    hook.usual = 500;
    await start({ env: redis.env });
    const id = await test();
    await until(() => hook.arrived.length > 0, 'it is tried', 30_000);
    await redis.kill9();
    const while_ = await test();
    hook.usual = 200;
    await redis.startAgain();
    await attemptNow();
    await until(
      async () => (await stateOf(id)) === 'sent' && (await stateOf(while_)) === 'sent',
      'both arrive',
      60_000,
    );
    expect(hook.arrived.filter(({ headers }) => headers['webhook-id'] === while_)).toHaveLength(1);
  });
});

describe('what comes and goes', { timeout: 120_000 }, () => {
  it('is told once in a cool-down, its end always, and what was left out in a number', async () => {
    const { id, server } = await newServer();
    for (let i = 0; i < 4; i++) {
      await lose(id);
      await until(() => isLost(id), 'it is noticed', 30_000);
      await looksPass();
      await server.register();
      await looksPass();
    }
    expect(hook.states('server.lost')).toEqual(['firing', 'resolved']);
    // still away when the time is over
    await lose(id);
    await until(() => isLost(id), 'it is noticed', 30_000);
    await looksPass();
    expect(hook.states('server.lost')).toHaveLength(2);
    await cooldownPasses();
    await looksPass();
    expect(hook.states('server.lost')).toEqual(['firing', 'resolved', 'firing']);
    expect(hook.arrived.findLast(({ body }) => body.kind === 'server.lost')?.body).toMatchObject({
      occurrences: 4,
      text: expect.stringMatching(/It began 4 times\.$/),
    });
    await server.register();
    await looksPass();
    expect(hook.states('server.lost')).toEqual(['firing', 'resolved', 'firing', 'resolved']);

    // come and gone within the cool-down, and not there when it is over: one message says so
    await lose(id);
    await until(() => isLost(id), 'it is noticed', 30_000);
    await server.register();
    await looksPass();
    expect(hook.states('server.lost')).toHaveLength(4);
    await cooldownPasses();
    await looksPass();
    await looksPass();
    expect(hook.states('server.lost').slice(4)).toEqual(['resolved']);
  });

  it('is not told of servers that an administrator drains, disables or deletes', async () => {
    const { id, server } = await newServer();
    await admin.post(`/api/v1/admin/servers/${id}/drain`, undefined);
    await lose(id);
    await until(() => isLost(id), 'it is noticed', 30_000);
    await admin.delete(`/api/v1/admin/servers/${id}`);
    await server.register();
    await admin.patch(`/api/v1/admin/servers/${id}`, { disabled: true });
    await lose(id);
    await looksPass();
    expect(hook.states('server.lost')).toEqual([]);
  });
});

describe('old notifications', () => {
  it('are forgotten, and those that nobody can send are given up', async () => {
    const [old, kept, stray] = [await test(), await test(), await test()];
    await allSettled();
    expect(await stateOf(stray)).toBe('sent');
    const change = (id: string, days: number) =>
      plane.database.query(`UPDATE notifications SET at = now() - make_interval(days => $2) WHERE id = $1`, [id, days]);
    await change(old, 3);
    await plane.database.query(
      `INSERT INTO notification_deliveries (notification, target) SELECT sequence, 'webhook-of-nobody' FROM notifications WHERE id = $1`,
      [kept],
    );
    // and one that has waited behind others, and is not due
    await plane.database.query(
      `UPDATE notification_deliveries SET state = 'pending', due_at = now() + interval '1 hour', finished_at = NULL
       WHERE notification = (SELECT sequence FROM notifications WHERE id = $1) AND target <> 'webhook-of-nobody'`,
      [kept],
    );
    const counted = async () => {
      const scrapes = await Promise.all(plane.backends.map(({ url }) => scrape(url)));
      const labels = { target: 'webhook', outcome: 'given_up' };
      return scrapes.reduce((sum, each) => sum + (each.value('bore_notifications_total', labels) ?? 0), 0);
    };
    const before = await counted();
    await change(kept, 1);
    await until(async () => (await stateOf(old)) === undefined, 'it is forgotten', 30_000);
    const givenUp = () =>
      plane.database.query(
        `SELECT FROM notification_deliveries JOIN notifications n ON n.sequence = notification WHERE n.id = $1 AND notification_deliveries.state = 'given_up'`,
        [kept],
      );
    await until(async () => (await givenUp()).length === 3, 'they are given up', 30_000);
    // two targets are set, and one is not
    await until(async () => (await counted()) === before + 2, 'they are counted');
    await until(
      () =>
        plane.backends.some((backend) =>
          /"target":"webhook-of-nobody","deliveries":1,"msg":"notifications given up/.test(backend.output()),
        ),
      'it is logged',
    );
  });
});
