import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { ControlPlane } from './control-plane.js';

/** As much as Node lets through in one header. */
const LONG = 15_000;
/** Of twenty requests; with work that grows with the square of the text they take several. CPU, because the machine is shared. */
const CPU_SECONDS_MAX = 0.75;

let plane: ControlPlane;
let admin: Api;
let user: Api;

beforeAll(async () => {
  plane = await ControlPlane.start();
  await plane.newServer('one', 20_000);
  [admin, user] = await Promise.all([plane.admin(), plane.newUser()]);
});

afterAll(() => plane?.stop());

async function cpuSeconds(): Promise<number> {
  const { text } = await new Api(plane.url()).get('/metrics');
  return Number(/^process_cpu_seconds_total (\S+)$/m.exec(text)?.[1]);
}

async function costOfTwenty(send: () => Promise<unknown>): Promise<number> {
  const before = await cpuSeconds();
  for (let i = 0; i < 20; i += 1) await send();
  return (await cpuSeconds()) - before;
}

describe('what is made to keep us busy', () => {
  it('is read in no time in Authorization, which anybody may send', async () => {
    const stranger = new Api(plane.url(), { authorization: 'x'.repeat(LONG) });
    expect((await stranger.get('/api/v1/tunnels')).status).toBe(401);
    expect(await costOfTwenty(() => stranger.get('/api/v1/tunnels'))).toBeLessThan(CPU_SECONDS_MAX);
  });

  it('is read in no time in If-None-Match', async () => {
    const { body } = await user.post('/api/v1/tunnels', {});
    const headers = { 'if-none-match': `"a${' '.repeat(LONG)}b"` };
    const get = () => user.send('GET', `/api/v1/tunnels/${body.id}`, undefined, headers);
    expect((await get()).status).toBe(200);
    expect(await costOfTwenty(get)).toBeLessThan(CPU_SECONDS_MAX);
  });

  it('is read in no time as the name of a host', async () => {
    const create = () =>
      admin.post('/api/v1/admin/servers', { id: 'slow', host: `${':'.repeat(60_000)}x`, location: 'x' });
    expect((await create()).status).toBe(400);
    expect(await costOfTwenty(create)).toBeLessThan(CPU_SECONDS_MAX);
  });

  it('is refused in no time as a name or a password of combining marks, which Unicode sorts one by one', async () => {
    const marks = `a${'\u0316\u0301'.repeat(LONG)}`;
    const nameKey = () => user.post('/api/v1/auth/api-keys', { name: marks, scopes: ['tunnels:read'] });
    const signUp = () =>
      new Api(plane.url()).post('/api/v1/auth/signup', { email: 'marks@example.com', password: marks });
    for (const send of [nameKey, signUp]) {
      expect((await send()).status).toBe(400);
      expect(await costOfTwenty(send)).toBeLessThan(CPU_SECONDS_MAX);
    }
  });

  it('is refused in no time as thousands of labels', async () => {
    const labels = Object.fromEntries(Array.from({ length: 6_000 }, (_, i) => [`!${i}`, '']));
    const open = () => user.post('/api/v1/tunnels', { labels });
    expect((await open()).status).toBe(400);
    expect((await costOfTwenty(open)) + (await costOfTwenty(open))).toBeLessThan(CPU_SECONDS_MAX);
  });
});
