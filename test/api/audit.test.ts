import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { ControlPlane } from './control-plane.js';

let plane: ControlPlane;
let admin: Api;
let adminId: string;

beforeAll(async () => {
  plane = await ControlPlane.start();
  admin = await plane.admin();
  adminId = (await admin.get('/api/v1/auth/me')).body.id;
});

afterAll(() => plane?.stop());

const list = async (query: string) => (await admin.get(`/api/v1/admin/audit?${query}`)).body;
const announce = (id: string) => admin.post('/api/v1/admin/servers', { id, host: 'h.example.com', location: 'x' });

describe('the audit log', () => {
  it('says who did what to what, from where, and with which request', async () => {
    const answer = await admin.send(
      'POST',
      '/api/v1/admin/servers',
      JSON.stringify({ id: 'told', host: 'h.example.com', location: 'x' }),
      {
        'content-type': 'application/json',
        'user-agent': `tester/${'1'.repeat(300)}`,
        'x-request-id': 'audit-test-0001',
      },
    );
    expect(answer.status).toBe(201);
    const { items } = await list('targetType=server&targetId=told');
    expect(items).toEqual([
      {
        id: expect.stringMatching(/^\d+$/),
        at: expect.any(String),
        action: 'server.created',
        actorId: adminId,
        actorEmail: 'admin@example.com',
        apiKeyId: null,
        targetType: 'server',
        targetId: 'told',
        userId: adminId,
        clientAddress: '127.0.0.1',
        userAgent: expect.stringMatching(/^tester\/1{193}$/),
        requestId: 'audit-test-0001',
        details: { host: 'h.example.com', location: 'x', creation: expect.any(String) },
      },
    ]);
  });

  it('is filtered, newest first, and cut into pages without a gap', async () => {
    const before = new Date().toISOString();
    for (let i = 0; i < 5; i++) await announce(`page-${i}`);
    await admin.post('/api/v1/admin/servers/page-0/drain', undefined);
    const ids = async (query: string) => {
      const found = [];
      for (let cursor = ''; ;) {
        const page = await list(`limit=2&${query}${cursor}`);
        found.push(...page.items.map(({ targetId }: { targetId: string }) => targetId));
        if (page.nextCursor === null) return found;
        cursor = `&cursor=${page.nextCursor}`;
      }
    };
    const created = ['page-4', 'page-3', 'page-2', 'page-1', 'page-0'];
    expect(await ids(`action=server.created&from=${before}`)).toEqual(created);
    expect(await ids(`actorId=${adminId}&from=${before}`)).toEqual(['page-0', ...created]);
    expect(await ids('action=server.drained')).toEqual(['page-0']);
    expect(await ids(`action=server.created&to=${before}`)).not.toContain('page-0');
    expect(await ids('targetType=tunnel&targetId=page-0')).toEqual([]);
    expect((await admin.get('/api/v1/admin/audit?action=nothing')).status).toBe(400);
    expect((await admin.get('/api/v1/admin/audit?cursor=eA')).status).toBe(400);
  });

  it('has nothing of what was refused, and shows what is about a user by the user', async () => {
    const user = await plane.newUser();
    const { id } = (await user.get('/api/v1/auth/me')).body;
    await admin.patch(`/api/v1/admin/users/${id}`, { plan: 'pro' });
    expect(await announce('page-0')).toMatchObject({ status: 409 });
    expect((await admin.patch(`/api/v1/admin/users/${adminId}`, { role: 'user' })).status).toBe(409);
    expect((await user.patch(`/api/v1/admin/users/${id}`, { plan: 'enterprise' })).status).toBe(403);
    expect((await list(`userId=${id}&action=user.updated`)).items).toMatchObject([
      { actorId: adminId, targetId: id, details: { plan: 'pro' } },
    ]);
    expect((await list(`userId=${adminId}&action=user.updated`)).items).toEqual([]);
    expect((await list('action=server.created&targetType=server&targetId=page-0')).items).toHaveLength(1);
  });

  it('is for administrators', async () => {
    expect((await (await plane.newUser()).get('/api/v1/admin/audit')).status).toBe(403);
  });
});
