/** What is kept under an `Idempotency-Key` is sealed under TUNNEL_KEY_SECRET, which changes. */
import { afterAll, beforeAll, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { ControlPlane } from './control-plane.js';

const OLD = 'tunnel-old-3456789abcdef0123456789abcdef';
const NEW = 'tunnel-new-3456789abcdef0123456789abcdef';

let plane: ControlPlane;
let rotating: Backend;
let rotated: Backend;
let user: Api;

beforeAll(async () => {
  plane = await ControlPlane.start({ env: { TUNNEL_KEY_SECRET: OLD } });
  const start = (TUNNEL_KEY_SECRET: string) =>
    startBackend({ database: plane.database, env: { TUNNEL_KEY_SECRET, PLAN_FREE_TUNNELS: '100' } });
  [rotating, rotated] = await Promise.all([start(`${NEW},${OLD}`), start(NEW)]);
  await plane.newServer('s1', 22_300);
  user = await plane.newUser();
});

afterAll(async () => {
  await Promise.all([rotating?.stop(), rotated?.stop()]);
  await plane?.stop();
});

const open = (key: string, url: string) =>
  user.at(url).send('POST', '/api/v1/tunnels', '{}', { 'content-type': 'application/json', 'idempotency-key': key });
const tunnels = async () => (await user.get('/api/v1/tunnels')).body.items.length;

it('an answer is given again while its secret is configured; afterwards it is said to be lost, and nothing is done again', async () => {
  const first = await open('k', plane.url());
  expect(await open('k', rotating.url)).toMatchObject({ status: 201, body: first.body });
  const before = await tunnels();
  expect(await open('k', rotated.url)).toMatchObject({ status: 409, body: { code: 'IDEMPOTENCY_ANSWER_LOST' } });
  expect(await tunnels()).toBe(before);
  expect((await open('another', rotated.url)).status).toBe(201);
});

it('so is a request whose backend died before it answered', async () => {
  await open('died', plane.url());
  await plane.database.query(
    `UPDATE idempotency_keys SET sealed_answer = NULL, claimed_until = now() WHERE key = 'died'`,
  );
  const before = await tunnels();
  expect(await open('died', rotated.url)).toMatchObject({ status: 409, body: { code: 'IDEMPOTENCY_ANSWER_LOST' } });
  expect(await tunnels()).toBe(before);
});
