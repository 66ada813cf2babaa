/** A backend that stops keeps a queue for as long as a job of it is at work: what the job asks of it is neither refused nor forgotten. */
import pg from 'pg';
import { afterEach, beforeEach, expect, it } from 'vitest';

import { ControlPlane } from '../api/control-plane.js';
import { until } from '../harness/until.js';
import { Receiver } from '../notifications/receiver.js';

let hook: Receiver;
let plane: ControlPlane;

async function start(): Promise<void> {
  hook = await Receiver.start();
  plane = await ControlPlane.start({
    env: {
      HOUSEKEEPING_INTERVAL_MS: '250',
      WEBHOOK_URLS: hook.url('/hook'),
      WEBHOOK_SECRET: '0123456789abcdef0123456789abcdef',
      WEBHOOK_ALLOW_INTERNAL: '127.0.0.0/8',
    },
  });
}

async function stop(): Promise<void> {
  await plane?.stop();
  await hook?.stop();
}

beforeEach(start);
afterEach(stop);

it('asks others to deliver what it has found while it stops', async () => {
  // a look waits for three seconds: on a busy machine that may be too short for a stop that begins meanwhile
  for (let i = 0; !(await stopsDuringLook()); i++) {
    expect(i).toBeLessThan(2);
    await stop();
    await start();
  }
  expect(await plane.database.query(`SELECT FROM bullmq.job WHERE name = 'deliver-notifications'`)).not.toEqual([]);
});

/** Stops the backend while it looks for what is to be delivered. Resolves with whether the look could go on then. */
async function stopsDuringLook(): Promise<boolean> {
  const { database } = plane;
  const [backend] = plane.backends;
  // a worker's connection is named by its queue, and there for as long as it works
  const working = async (queue: string) =>
    (
      await database.query(
        'SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1',
        [queue],
      )
    ).length > 0;
  await until(
    async () => (await working('housekeeping')) && (await working('notifications')),
    'both queues have their workers',
  );
  const admin = await plane.admin();
  const locker = new pg.Client({ ...database.address });
  await locker.connect();
  try {
    await locker.query('BEGIN; LOCK TABLE notification_deliveries');
    // whose deliveries nobody can write down now
    await admin.post('/api/v1/admin/notifications/test', undefined);
    // about to write them down, and not at something else of this table
    const waiting = () =>
      database.query(
        `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%address_notifications%'`,
      );
    const earlier = (await waiting()).length;
    await until(async () => (await waiting()).length > earlier, 'a look is under way that began since');
    backend?.signal('SIGTERM');
    await until(async () => !(await working('housekeeping')), 'the worker without a job is gone');
    const waits = (await waiting()).length > earlier;
    await locker.query('COMMIT');
    expect(await backend?.exitCode()).toBe(0);
    return waits;
  } finally {
    await locker.end();
  }
}
