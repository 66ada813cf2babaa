import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { ControlPlane } from './control-plane.js';

let plane: ControlPlane;
let admin: Api;
let user: Api;

beforeAll(async () => {
  plane = await ControlPlane.start();
  await plane.newServer('one', 20_000);
  [admin, user] = await Promise.all([plane.admin(), plane.newUser()]);
});

afterAll(() => plane?.stop());

describe('text that the database cannot keep', () => {
  it.each([
    ['/api/v1/admin/users?email=a%00b'],
    ['/api/v1/admin/audit?targetId=a%00b'],
    ['/api/v1/tunnels?label=a:%00'],
  ])('is refused in the query %s', async (path) => {
    expect(await admin.get(path)).toMatchObject({ status: 400, body: { code: 'VALIDATION_FAILED' } });
  });

  it('is refused in a reason', async () => {
    const { body: me } = await user.get('/api/v1/auth/me');
    const answer = await admin.patch(`/api/v1/admin/users/${me.id}`, { suspended: { reason: 'half \ud800' } });
    expect(answer).toMatchObject({ status: 400, body: { code: 'VALIDATION_FAILED' } });
  });
});

describe('a list whose places are long', () => {
  it('goes on behind an e-mail address of any length that an account may have', async () => {
    const long = `${'a'.repeat(188)}@${'b'.repeat(40)}.example.com`;
    // before those of other accounts, which begin with any digit
    const lowest = '0'.repeat(12);
    const [, , third] = await Promise.all(['1', '2', '3'].map((digit) => signUp(`${lowest}${digit}${long}`)));
    const first = await admin.get('/api/v1/admin/users?sort=email&limit=2');
    const second = await admin.get(`/api/v1/admin/users?sort=email&limit=1&cursor=${first.body.nextCursor}`);
    expect(second).toMatchObject({ status: 200, body: { items: [{ email: third }] } });
  });
});

async function signUp(email: string): Promise<string> {
  const signup = await new Api(plane.url()).post('/api/v1/auth/signup', { email, password: 'correct horse battery' });
  expect(signup.status).toBe(201);
  return email;
}

describe('an id in upper case', () => {
  it('is the same in the audit log, and in orders to bore-servers', async () => {
    const owner = await plane.newUser();
    const server = await plane.newServer('two', 30_000);
    const { body } = await owner.post('/api/v1/tunnels', { port: 30_001 });
    expect((await server.authorize(body.token, 30_001)).status).toBe(200);
    const upper = String(body.id).toUpperCase();

    expect((await owner.patch(`/api/v1/tunnels/${upper}`, { denyCidrs: ['192.0.2.0/24'] })).status).toBe(200);
    expect(server.calls.map(({ path }) => path)).toContain(`/tunnels/${body.id}/settings`);
    expect((await admin.post(`/api/v1/admin/tunnels/${upper}/suspend`, { reason: 'phishing' })).status).toBe(200);
    const { body: audit } = await admin.get(`/api/v1/admin/audit?targetType=tunnel&targetId=${body.id}`);
    expect(audit.items.map(({ action }: { action: string }) => action)).toContain('tunnel.suspended');
  });
});
