import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { type Answer, Api } from '../harness/api.js';
import { ControlPlane } from './control-plane.js';

/** As much as Node lets through in one header. */
const LONG = 15_000;
/** How often each is sent, in turns. */
const ROUNDS = 5;
const REQUESTS = 10;
/**
 * CPU against that of the same request with a harmless text, in the same run. What is long costs a little more to read; with
 * work that grows with the square of it, each of these was 8 to 200 times as dear.
 */
const TIMES_MAX = 5;

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

async function costOf(send: () => Promise<unknown>): Promise<number> {
  const before = await cpuSeconds();
  for (let i = 0; i < REQUESTS; i += 1) await send();
  return (await cpuSeconds()) - before;
}

/** Fails when `hostile` takes much more of the backend's CPU than `harmless`. */
async function expectCheap(
  name: string,
  hostile: () => Promise<Answer>,
  harmless: () => Promise<Answer>,
): Promise<void> {
  const cost = { hostile: 0, harmless: 0 };
  for (let round = 0; round < ROUNDS; round += 1) {
    cost.harmless += await costOf(harmless);
    cost.hostile += await costOf(hostile);
  }
  process.stdout.write(`CPU of hostile against harmless, ${name}: ${(cost.hostile / cost.harmless).toFixed(1)}\n`);
  expect(cost.hostile).toBeLessThan(cost.harmless * TIMES_MAX);
}

describe('what is made to keep us busy', () => {
  it('is read in no time in Authorization, which anybody may send', async () => {
    const stranger = (authorization: string) => () => new Api(plane.url(), { authorization }).get('/api/v1/tunnels');
    const hostile = stranger('x'.repeat(LONG));
    expect((await hostile()).status).toBe(401);
    await expectCheap('Authorization', hostile, stranger('x'));
  });

  it('is read in no time in If-None-Match', async () => {
    const { body } = await user.post('/api/v1/tunnels', {});
    const get = (tag: string) => () =>
      user.send('GET', `/api/v1/tunnels/${body.id}`, undefined, { 'if-none-match': tag });
    const hostile = get(`"a${' '.repeat(LONG)}b"`);
    expect((await hostile()).status).toBe(200);
    await expectCheap('If-None-Match', hostile, get('"a b"'));
  });

  it('is read in no time as the name of a host', async () => {
    const create = (host: string) => () => admin.post('/api/v1/admin/servers', { id: 'slow', host, location: 'x' });
    const hostile = create(`${':'.repeat(60_000)}x`);
    expect((await hostile()).status).toBe(400);
    await expectCheap('host', hostile, create(':x'));
  });

  it('is refused in no time as a name or a password of combining marks, which Unicode sorts one by one', async () => {
    const marks = `a${'\u0316\u0301'.repeat(LONG)}`;
    const nameKey = (name: string, scope: string) => () =>
      user.post('/api/v1/auth/api-keys', { name, scopes: [scope] });
    const signUp = (email: string, password: string) => () =>
      new Api(plane.url()).post('/api/v1/auth/signup', { email, password });
    const hostile = [nameKey(marks, 'tunnels:read'), signUp('marks@example.com', marks)] as const;
    for (const send of hostile) expect((await send()).status).toBe(400);
    // refused as well: what succeeds costs more
    await expectCheap('a name', hostile[0], nameKey('a', 'none'));
    await expectCheap('a password', hostile[1], signUp('marks@example.com', 'short'));
  });

  it('is refused in no time as thousands of labels', async () => {
    const open = (count: number) => () =>
      user.post('/api/v1/tunnels', {
        labels: Object.fromEntries(Array.from({ length: count }, (_, i) => [`!${i}`, ''])),
      });
    const hostile = open(6_000);
    expect((await hostile()).status).toBe(400);
    await expectCheap('labels', hostile, open(1));
  });
});
