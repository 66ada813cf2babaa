/** While releases are mixed, a backend gets jobs that only the other one knows: it leaves them alone, and nothing fails. */
import { Queue, setDefaultBackendFactory, createPostgresBackend } from 'bullmq';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { ControlPlane } from '../api/control-plane.js';
import { until } from '../harness/until.js';

let plane: ControlPlane;

beforeAll(async () => {
  plane = await ControlPlane.start({ env: { LOG_LEVEL: 'debug' } });
});

afterAll(() => plane?.stop());

it('is done without a word that alarms', async () => {
  const { host, port, database, user: name, password } = plane.database.address;
  setDefaultBackendFactory(createPostgresBackend);
  // the backend may not have made the queue yet
  const connection = { host, port, database, user: name, password, migrate: true };
  const queue = new Queue('housekeeping', { connection });
  try {
    const job = await queue.add('of-a-later-release', {});
    await until(() => job.isCompleted().then(async (done) => done || (await job.isFailed())), 'somebody has had it');
    expect(await job.isFailed()).toBe(false);
    const said = plane.backends.map((backend) => backend.output()).join('');
    expect(said).toContain('job of another release: of-a-later-release');
    expect(said).not.toMatch(/"level":"(warn|error)".*of-a-later-release/);
  } finally {
    await queue.close();
  }
});
