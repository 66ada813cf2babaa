/** Hints that backends give each other over a real Redis, which is lost and comes back. */
import { Redis } from 'ioredis';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';

import { EventStream } from '../harness/event-stream.js';
import { OwnRedis, REDIS_PASSWORD, redisMissing } from '../harness/own-redis.js';
import { until } from '../harness/until.js';
import { ControlPlane } from './control-plane.js';

const MISSING = redisMissing();
const CHANNEL = 'bore:events';

let redis: OwnRedis;
let plane: ControlPlane;

beforeAll(async () => {
  if (MISSING) return;
  redis = await OwnRedis.start();
  plane = await ControlPlane.start({ backends: 2, env: redis.env });
  await plane.newServer('hints', 10_000);
});

afterAll(async () => {
  redis?.signal('SIGCONT');
  await plane?.stop();
  await redis?.stop();
});

beforeEach((context) => {
  if (MISSING) context.skip(MISSING);
});

const subscribers = async () => Number((await redis.ask((client) => client.pubsub('NUMSUB', CHANNEL)))[1]);
const bothListen = () => until(async () => (await subscribers()) === 2, 'both backends listen', 20_000);

it('backends tell each other over Redis to look, and none keeps a connection to PostgreSQL for it', async () => {
  await bothListen();
  const listening = new Redis({ host: '127.0.0.1', port: redis.port, password: REDIS_PASSWORD });
  const messages: string[] = [];
  listening.on('message', (_channel, message) => messages.push(message));
  await listening.subscribe(CHANNEL);
  const user = await plane.newUser();
  const stream = await EventStream.open(user.at(plane.url(1)));
  const before = messages.length;
  const began = performance.now();
  const { id } = (await user.post('/api/v1/tunnels', {})).body;
  for (let i = 1; i <= 10; i++) {
    await stream.received(i);
    await user.patch(`/api/v1/tunnels/${id}`, { name: `n${i}` });
  }
  // looking once a second would take ten
  expect(performance.now() - began).toBeLessThan(5_000);
  await until(() => messages.length > before, 'a hint');
  // what happened is in the outbox and nowhere else
  expect(new Set(messages)).toEqual(new Set(['']));
  expect(
    await plane.database.query(
      `SELECT FROM pg_stat_activity WHERE application_name = 'bore-events' AND datname = current_database()`,
    ),
  ).toEqual([]);
  stream.close();
  listening.disconnect();
});

it('Redis lost and back: events go on, each once and in order, and hints return by themselves', async () => {
  const user = await plane.newUser();
  const streams = await Promise.all([0, 1].map((i) => EventStream.open(user.at(plane.url(i)))));
  const { id } = (await user.post('/api/v1/tunnels', {})).body;
  let written = 1;
  const change = async (times: number) => {
    for (let i = 0; i < times; i++) await user.patch(`/api/v1/tunnels/${id}`, { name: `n${written++}` });
    // two seconds at the most: by looking, and the time that the machine takes
    for (const stream of streams) await stream.received(written, 4_000);
  };
  await change(5);
  await redis.kill9();
  await change(5);
  await redis.startAgain();
  await change(5);
  await bothListen();
  redis.signal('SIGSTOP');
  await change(5);
  redis.signal('SIGCONT');
  await bothListen();
  await change(5);
  const rows = await plane.database.query('SELECT id::text FROM events WHERE tunnel_id = $1 ORDER BY events.id', [id]);
  expect(rows).toHaveLength(26);
  for (const stream of streams) {
    expect(stream.events.map((event) => event.id)).toEqual(rows.map((row) => row['id']));
    stream.close();
  }
});
