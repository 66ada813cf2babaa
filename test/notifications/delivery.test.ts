/** What is told, to whom, and that it arrives once, over several backends. */
import { createHash, randomBytes } from 'node:crypto';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { scrape } from '../harness/metrics.js';
import { OwnRedis, redisMissing } from '../harness/own-redis.js';
import { until } from '../harness/until.js';
import { ControlPlane } from '../api/control-plane.js';
import { Receiver, signatureOf } from './receiver.js';

const MISSING = redisMissing();
const KEYS = { old: randomBytes(32), new: Buffer.from('webhook-secret-of-this-suite-0123456789') };
/** Stand in the URLs, and nowhere else. */
const [SLACK_TOKEN, HOOK_TOKEN] = [randomBytes(12).toString('hex'), randomBytes(12).toString('hex')];

const QUEUES = ['PostgreSQL', 'Redis'] as const;

describe.each(QUEUES)('notifications over the queue on %s', (queue) => {
  let redis: OwnRedis | undefined;
  let plane: ControlPlane;
  let admin: Api;
  let slack: Receiver;
  let hook: Receiver;

  beforeAll(async () => {
    if (queue === 'Redis' && MISSING) return;
    if (queue === 'Redis') redis = await OwnRedis.start();
    [slack, hook] = [await Receiver.start(), await Receiver.start()];
    plane = await ControlPlane.start({
      backends: queue === 'Redis' ? 3 : 2,
      env: {
        ...redis?.env,
        HOUSEKEEPING_INTERVAL_MS: '250',
        SLACK_WEBHOOK_URL: slack.url(`/services/${SLACK_TOKEN}`),
        WEBHOOK_URLS: hook.url(`/hook?token=${HOOK_TOKEN}`),
        WEBHOOK_SECRET: `whsec_${KEYS.old.toString('base64')},${KEYS.new.toString()}`,
        WEBHOOK_ALLOW_INTERNAL: '127.0.0.0/8',
        NOTIFICATION_COOLDOWN_SECONDS: '900',
        TOTAL_SYSTEM_CAPACITY: '20',
      },
    });
    admin = await plane.admin();
  }, 120_000);

  afterAll(async () => {
    const said = plane?.backends.map((backend) => backend.output()).join('') ?? '';
    const listed = (await admin?.get('/api/v1/admin/notifications?limit=100'))?.text ?? '';
    await plane?.stop();
    await redis?.stop();
    await slack?.stop();
    await hook?.stop();
    for (const secret of [SLACK_TOKEN, HOOK_TOKEN]) {
      expect(said).not.toContain(secret);
      expect(listed).not.toContain(secret);
    }
  });

  beforeEach((context) => {
    if (queue === 'Redis' && MISSING) context.skip(MISSING);
    hook.forget();
    slack.forget();
  });

  const settled = async () =>
    (await plane.database.query(`SELECT FROM notification_deliveries WHERE state = 'pending'`)).length === 0;
  const told = (kind: string, states: string[]) =>
    until(() => hook.states(kind).length >= states.length, `${kind} is told`, 30_000).then(async () => {
      await until(settled, 'all is delivered', 30_000);
      expect(hook.states(kind)).toEqual(states);
    });

  it('tells of a server that is lost and returns, once each, to each target', async () => {
    const server = await plane.newServer('eu-1', 12_000, 20);
    await plane.database.query(`UPDATE servers SET lease_until = now() - interval '1 s'`);
    await told('server.lost', ['firing']);
    await server.register();
    await told('server.lost', ['firing', 'resolved']);

    const [first, second] = hook.arrived;
    expect(first?.body).toMatchObject({
      type: 'server.lost.firing',
      kind: 'server.lost',
      key: 'eu-1',
      state: 'firing',
      severity: 'critical',
      occurrences: 1,
      text: expect.stringContaining('bore-server eu-1 (default) is lost'),
    });
    expect(second?.body).toMatchObject({ type: 'server.lost.resolved', text: expect.stringContaining('it is online') });
    expect(slack.arrived.map(({ body }) => body.text)).toEqual([
      expect.stringMatching(/^:rotating_light: \*firing\* \(critical\) bore-server eu-1 /),
      expect.stringMatching(/^:white_check_mark: \*resolved\* /),
    ]);
    expect(new Set(hook.arrived.map(({ headers }) => headers['webhook-id'])).size).toBe(2);
    expect(first?.headers['webhook-id']).toBe(first?.body.id);
  });

  it('signs webhooks with every secret that is set, and Slack’s not at all', async () => {
    const { status, body } = await admin.post('/api/v1/admin/notifications/test', undefined);
    const id = createHash('sha256')
      .update(hook.url(`/hook?token=${HOOK_TOKEN}`))
      .digest('hex')
      .slice(0, 12);
    expect({ status, targets: body.targets }).toEqual({ status: 202, targets: ['slack', `webhook-${id}`] });
    await told('test', ['occurred']);
    const [arrived] = hook.arrived;
    if (!arrived) throw new Error('nothing has arrived');
    expect(String(arrived.headers['webhook-signature']).split(' ')).toEqual([
      signatureOf(KEYS.old, arrived),
      signatureOf(KEYS.new, arrived),
    ]);
    expect(arrived.headers['webhook-id']).toBe(body.id);
    expect(Math.abs(Number(arrived.headers['webhook-timestamp']) - Date.now() / 1000)).toBeLessThan(30);
    expect(slack.arrived[0]?.headers['webhook-signature']).toBeUndefined();
    const [listed] = (await admin.get('/api/v1/admin/notifications?limit=1')).body.items;
    expect(listed).toMatchObject({
      id: body.id,
      kind: 'test',
      deliveries: [
        { target: 'slack', state: 'sent', attempts: 1, failure: null },
        { target: `webhook-${id}`, state: 'sent', attempts: 1 },
      ],
    });
    const log = (await admin.get('/api/v1/admin/audit?action=notifications.tested')).body.items;
    expect(log).toHaveLength(1);
  });

  it('tells of abuse with the reason, which is text and no command to Slack', async () => {
    const user = await plane.newUser();
    const { id } = (await user.post('/api/v1/tunnels', {})).body;
    const reason = '<!channel> & <https://evil.example|click> @here';
    expect((await admin.post(`/api/v1/admin/tunnels/${id}/suspend`, { reason, suspendUser: true })).status).toBe(200);
    await told('user.suspended', ['occurred']);
    await told('tunnel.suspended', ['occurred']);
    expect(hook.arrived.map(({ body }) => body.text)).toContainEqual(expect.stringContaining(reason));
    const texts = slack.arrived.map(({ body }) => body.text);
    expect(texts).toHaveLength(2);
    for (const text of texts) {
      expect(text).toContain('&lt;!channel&gt; &amp; &lt;https://evil.example|click&gt; @here');
      expect(text).not.toMatch(/[<>]/);
    }
    expect(slack.arrived[0]?.body).toMatchObject({ link_names: false, parse: 'none' });
  });

  it('tells of capacity that runs out from 85 % on, and again below 80 %, and of nothing in between', async () => {
    const user = await plane.newUser();
    const ids: string[] = [];
    for (let i = 0; i < 17; i++) ids.push((await user.post('/api/v1/tunnels', {})).body.id);
    await told('capacity.high', ['firing']);
    expect(hook.arrived.at(-1)?.body.text).toBe('Capacity runs out: 17 of 20 tunnels are open (85 %).');
    // 80 %: not below it
    await user.delete(`/api/v1/tunnels/${ids.pop()}`);
    const looks = async () => {
      const task = { task: 'find-notifications', outcome: 'completed' };
      const of = async ({ url }: { url: string }) => (await scrape(url)).sum('bore_jobs_total', task);
      return (await Promise.all(plane.backends.map(of))).reduce((sum, count) => sum + count, 0);
    };
    const before = await looks();
    await until(async () => (await looks()) > before + 8, 'some looks', 30_000);
    expect(hook.states('capacity.high')).toEqual(['firing']);
    await user.delete(`/api/v1/tunnels/${ids.pop()}`);
    await told('capacity.high', ['firing', 'resolved']);
    expect(hook.arrived.at(-1)?.body).toMatchObject({
      text: 'Capacity is free again: 15 of 20 tunnels are open (75 %).',
    });
  });

  it('tells of a breaker that is open on several backends once, and when the last is closed', async () => {
    const views = async (states: string[]) => {
      const backends = await plane.database.query(`SELECT id FROM backends ORDER BY id`);
      for (const [i, state] of states.entries()) {
        await plane.database.query(
          `INSERT INTO backends (id, seen_at) VALUES ($1, now() + interval '1 h') ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at`,
          [`01a210f9-0000-7000-8000-00000000000${i}`],
        );
        await plane.database.query(
          `INSERT INTO breaker_views (backend_id, server_id, state, stats, updated_at) VALUES ($1, 'eu-1', $2, '{}', now())
           ON CONFLICT (backend_id, server_id) DO UPDATE SET state = excluded.state`,
          [`01a210f9-0000-7000-8000-00000000000${i}`, state],
        );
      }
      return backends;
    };
    await views(['open', 'open', 'closed']);
    await told('breaker.open', ['firing']);
    await views(['half-open', 'closed', 'closed']);
    await views(['closed', 'closed', 'closed']);
    await told('breaker.open', ['firing', 'resolved']);
    expect(slack.arrived).toHaveLength(2);
    await plane.database.query(`DELETE FROM backends WHERE seen_at > now()`);
  });

  it('counts attempts, and sends what is asked of all backends at once once for each', async () => {
    const answers = await Promise.all(
      Array.from({ length: 15 }, (_, i) => admin.at(plane.url(i)).post('/api/v1/admin/notifications/test', undefined)),
    );
    const ids: string[] = answers.map(({ body }) => body.id);
    await until(() => hook.arrived.length >= 15 && slack.arrived.length >= 15, 'all arrive', 30_000);
    await until(settled, 'all is delivered');
    expect(hook.ids()).toEqual(ids.toSorted());
    expect(slack.arrived).toHaveLength(15);
    expect([hook.openMax, slack.openMax]).toEqual([1, 1]);
    const sums = async () => {
      const figures = await Promise.all(plane.backends.map(({ url }) => admin.at(url).get('/metrics')));
      const sum = (target: string) =>
        figures
          .map(
            ({ text }) =>
              new RegExp(`^bore_notifications_total\\{target="${target}",outcome="sent"\\} (\\d+)$`, 'm').exec(
                text,
              )?.[1],
          )
          .reduce((total, n) => total + Number(n), 0);
      return [sum('slack'), sum('webhook')];
    };
    const sent = async (target: string) =>
      (
        await plane.database.query(`SELECT FROM notification_deliveries WHERE state = 'sent' AND target LIKE $1`, [
          `${target}%`,
        ])
      ).length;
    const booked = [await sent('slack'), await sent('webhook')];
    // counted when the database has answered, a moment after others see it
    await until(async () => (await sums()).every((sum, i) => sum >= (booked[i] ?? NaN)), 'all are counted');
    expect(await sums()).toEqual(booked);
  });
});
