import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { ControlPlane } from './control-plane.js';

/** As much as Node lets through in one header. */
const LONG = 15_000;
/** Twenty requests take a tenth of this; with a pattern that backtracks over the text, ten times as much. */
const SECOND_MS = 1_000;

let plane: ControlPlane;
let admin: Api;
let user: Api;

beforeAll(async () => {
  plane = await ControlPlane.start();
  await plane.newServer('one', 20_000);
  [admin, user] = await Promise.all([plane.admin(), plane.newUser()]);
});

afterAll(() => plane?.stop());

async function timeOfTwenty(send: () => Promise<unknown>): Promise<number> {
  const before = performance.now();
  for (let i = 0; i < 20; i += 1) await send();
  return performance.now() - before;
}

describe('a text that is made to keep a pattern busy', () => {
  it('is read in no time in Authorization, which anybody may send', async () => {
    const stranger = new Api(plane.url(), { authorization: 'x'.repeat(LONG) });
    expect((await stranger.get('/api/v1/tunnels')).status).toBe(401);
    expect(await timeOfTwenty(() => stranger.get('/api/v1/tunnels'))).toBeLessThan(SECOND_MS);
  });

  it('is read in no time in If-None-Match', async () => {
    const { body } = await user.post('/api/v1/tunnels', {});
    const headers = { 'if-none-match': `"a${' '.repeat(LONG)}b"` };
    const get = () => user.send('GET', `/api/v1/tunnels/${body.id}`, undefined, headers);
    expect((await get()).status).toBe(200);
    expect(await timeOfTwenty(get)).toBeLessThan(SECOND_MS);
  });

  it('is read in no time as the name of a host', async () => {
    const create = () =>
      admin.post('/api/v1/admin/servers', { id: 'slow', host: `${':'.repeat(60_000)}x`, location: 'x' });
    expect((await create()).status).toBe(400);
    expect(await timeOfTwenty(create)).toBeLessThan(SECOND_MS);
  });
});
