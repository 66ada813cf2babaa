/** Counters of open tunnels that somebody has changed by hand are put right, while tunnels are opened and closed. */
import { afterAll, beforeAll, expect, it } from 'vitest';

import { ControlPlane } from '../api/control-plane.js';
import { Api } from '../harness/api.js';
import { until } from '../harness/until.js';

let plane: ControlPlane;

beforeAll(async () => {
  plane = await ControlPlane.start({ backends: 2, env: { HOUSEKEEPING_INTERVAL_MS: '100' } });
});

afterAll(() => plane?.stop());

/** What was put right, over both backends. */
async function repairs(counter: string): Promise<number> {
  let total = 0;
  for (const backend of plane.backends) {
    const { text } = await new Api(backend.url).get('/metrics');
    total += Number(new RegExp(`^bore_reconciliations_total\\{counter="${counter}"\\} (\\d+)$`, 'm').exec(text)?.[1]);
  }
  return total;
}

it('puts wrong counters right, once, under concurrent admissions, and tells of it', async () => {
  await plane.newServer('s1', 20_000);
  const user = await plane.newUser();
  await user.post('/api/v1/tunnels', {});
  expect([await repairs('server'), await repairs('user')]).toEqual([0, 0]);

  await plane.database.query(`UPDATE servers SET open_tunnels = 90`);
  await plane.database.query(`UPDATE users SET open_tunnels = 7 WHERE open_tunnels > 0`);
  let done = false;
  const traffic = Array.from({ length: 4 }, async (_, i) => {
    const other = await plane.newUser(i);
    while (!done) {
      const { status, body } = await other.post('/api/v1/tunnels', {});
      expect([201, 503]).toContain(status);
      if (status === 201) expect((await other.delete(`/api/v1/tunnels/${body.id}`)).status).toBe(204);
    }
  });
  const wrong = () => plane.database.query(`SELECT * FROM wrong_open_tunnels()`);
  await until(async () => (await wrong()).length === 0, 'the counters are right');
  // some more, to see that admissions keep it right
  await until(async () => (await repairs('server')) + (await repairs('user')) === 2, 'it is told');
  done = true;
  await Promise.all(traffic);

  expect(await wrong()).toEqual([]);
  expect(await plane.database.query(`SELECT open_tunnels FROM servers`)).toEqual([{ open_tunnels: 1 }]);
  expect([await repairs('server'), await repairs('user')]).toEqual([1, 1]);
  const log = plane.backends.map((backend) => backend.output()).join('');
  expect(log).toMatch(/"level":"warn".*"counter":"server","id":"s1","said":9\d,"counted":\d/);
});
