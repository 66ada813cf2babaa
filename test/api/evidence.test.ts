import { randomUUID } from 'node:crypto';

import { afterAll, beforeAll, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { until } from '../harness/until.js';
import { ControlPlane } from './control-plane.js';

const PORT = 20_905;

let plane: ControlPlane;
let admin: Api;

beforeAll(async () => {
  plane = await ControlPlane.start({
    env: {
      SERVER_LOST_GRACE: '0',
      HOUSEKEEPING_INTERVAL_MS: '100',
      // what is written below is of days long past, and not to be forgotten meanwhile
      CONNECTION_RETENTION_DAYS: '3650',
    },
  });
  admin = await plane.admin();
  await plane.newServer('s1', 20_900, 10);
});

afterAll(() => plane?.stop());

const evidence = (from: string, to: string, as = admin, port = PORT, server = 's1') =>
  as.get(`/api/v1/admin/evidence?serverId=${server}&port=${port}&from=${from}&to=${to}`);
const linesOf = (text: string) =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));

/** A tunnel that had the port on that day, closed, and connections to it. */
async function history(user: Api, day: string, connections: number): Promise<string> {
  const { id } = (await user.post('/api/v1/tunnels', { port: PORT })).body;
  await user.delete(`/api/v1/tunnels/${id}`);
  await plane.database.query(
    `UPDATE tunnels SET created_at = $2::timestamptz, closed_at = $2::timestamptz + interval '1 hour', client_address = '192.0.2.7' WHERE id = $1`,
    [id, `${day}T10:00:00Z`],
  );
  await plane.database.query(
    `INSERT INTO tunnel_connections (id, tunnel_id, visitor_address, visitor_port, started_at, ended_at, bytes_in, bytes_out, reason)
     SELECT gen_random_uuid(), $1, '198.51.100.9', i % 60000 + 1, $2::timestamptz, $2::timestamptz + interval '1 minute', 1, 2, 'visitor_closed'
     FROM generate_series(1, $3) i`,
    [id, `${day}T10:10:00Z`, connections],
  );
  return id;
}

it('names everybody who had a port in a window, and every visitor, and is in the audit log', async () => {
  const [first, second] = [await plane.newUser(), await plane.newUser()];
  // the second has more than a page of connections, which all ended at once
  const ids = [await history(first, '2026-10-01', 3), await history(second, '2026-10-02', 2_345)];
  await history(first, '2026-10-20', 1);
  const answer = await evidence('2026-10-01T10:30:00Z', '2026-10-03T00:00:00Z');
  expect(answer.status).toBe(200);
  expect(answer.headers.get('content-type')).toContain('application/x-ndjson');
  expect(answer.text).not.toMatch(/tk_|sealed|argon/);
  const lines = linesOf(answer.text);
  expect(lines[0]).toMatchObject({ kind: 'export', serverId: 's1', port: PORT, exportedBy: 'admin@example.com' });
  expect(lines.at(-1)).toEqual({ kind: 'end', tunnels: 2, sessions: 0, connections: 2_345, truncated: false });
  const emails = await Promise.all([first, second].map(async (user) => (await user.get('/api/v1/auth/me')).body.email));
  expect(lines.filter(({ kind }) => kind === 'tunnel')).toMatchObject(
    ids.map((tunnelId, i) => ({ tunnelId, email: emails[i], clientAddress: '192.0.2.7', closeReason: 'deleted' })),
  );
  // the first tunnel's connections had ended before the window began
  const connections = lines.filter(({ kind }) => kind === 'connection');
  expect(new Set(connections.map(({ id }) => id)).size).toBe(2_345);
  expect(connections[0]).toMatchObject({ tunnelId: ids[1], visitorAddress: '198.51.100.9', bytesIn: 1, bytesOut: 2 });
  expect((await admin.get('/api/v1/admin/audit?action=evidence.exported')).body.items).toMatchObject([
    { targetId: 's1', details: { port: PORT, from: '2026-10-01T10:30:00Z', to: '2026-10-03T00:00:00Z' } },
  ]);
});

it('names the address of every client that carried the tunnel in the window, and not only of the last', async () => {
  const id = await history(await plane.newUser(), '2026-09-10', 0);
  // one before the window, more than a page within, one that is in it still, one after it
  await plane.database.query(
    `INSERT INTO tunnel_sessions (id, tunnel_id, server_id, epoch, client_address, connected_at, disconnected_at)
     SELECT gen_random_uuid(), $1, 's1', i, '203.0.113.' || i % 250, at, CASE WHEN i <> 1203 THEN at + interval '1 second' END
     FROM generate_series(1, 1204) i, LATERAL (SELECT CASE i WHEN 1 THEN timestamptz '2026-09-10T10:00Z' WHEN 1204 THEN '2026-09-10T12:00Z'
       ELSE '2026-09-10T10:30Z' END AS at) t`,
    [id],
  );
  const lines = linesOf((await evidence('2026-09-10T10:15:00Z', '2026-09-10T11:00:00Z')).text);
  const sessions = lines.filter(({ kind }) => kind === 'session');
  expect(new Set(sessions.map(({ epoch }) => epoch))).toEqual(new Set(Array.from({ length: 1202 }, (_, i) => i + 2)));
  expect(sessions).toHaveLength(1202);
  expect(sessions[0]).toMatchObject({ tunnelId: id, serverId: 's1', clientAddress: '203.0.113.2' });
  expect(sessions.at(-1)).toMatchObject({ connectedAt: '2026-09-10T10:30:00.000Z', disconnectedAt: null });
  expect(lines.at(-1)).toMatchObject({ kind: 'end', tunnels: 1, sessions: 1202, truncated: false });
});

it('finds a tunnel where it was before it moved, and where it is since', async () => {
  const user = await plane.newUser();
  await plane.newServer('lost', 20_950, 10);
  const port = 20_955;
  const { id } = (await user.post('/api/v1/tunnels', { port, relocate: true })).body;
  await plane.database.query(`UPDATE servers SET lease_until = now() - interval '1 second' WHERE id = 'lost'`);
  const { serverId, port: newPort } = await until(async () => {
    const { body } = await user.get(`/api/v1/tunnels/${id}`);
    return body.serverId === 's1' && body;
  }, 'it moves');
  // as if it had moved half an hour ago, an hour after it was opened
  await plane.database.query(`UPDATE tunnels SET created_at = now() - interval '90 minutes' WHERE id = $1`, [id]);
  await plane.database.query(`ALTER TABLE audit_log DISABLE TRIGGER audit_log_is_append_only`);
  await plane.database.query(
    `UPDATE audit_log SET at = now() - interval '30 minutes' WHERE action = 'tunnel.relocated' AND target_id = $1`,
    [id],
  );
  await plane.database.query(`ALTER TABLE audit_log ENABLE TRIGGER audit_log_is_append_only`);

  const at = (minutes: number) => new Date(Date.now() + minutes * 60_000).toISOString();
  const found = async (server: string, ofPort: number, from: number, to: number) => {
    const query = `serverId=${server}&port=${ofPort}&from=${at(from)}&to=${at(to)}`;
    const lines = linesOf((await admin.get(`/api/v1/admin/evidence?${query}`)).text);
    return lines.some(({ kind, tunnelId }) => kind === 'tunnel' && tunnelId === id);
  };
  expect(await found('lost', port, -60, -40)).toBe(true);
  expect(await found(serverId, newPort, -20, -10)).toBe(true);
  expect(await found('lost', port, -20, -10)).toBe(false);
  expect(await found(serverId, newPort, -60, -40)).toBe(false);
  expect(await found('lost', port, -120, -100)).toBe(false);
});

it('shows what administrators did to the tunnel, and nothing of other ports', async () => {
  // of its own: the tunnel that moved has any port of the first server
  await plane.newServer('s2', 20_970, 10);
  const opened = await (await plane.newUser()).post('/api/v1/tunnels', { port: 20_971 });
  expect(opened.status).toBe(201);
  const { id } = opened.body;
  expect((await admin.post(`/api/v1/admin/tunnels/${id}/suspend`, { reason: 'phishing' })).status).toBe(200);
  const now = (minutes: number) => new Date(Date.now() + minutes * 60_000).toISOString();
  const lines = linesOf((await evidence(now(-5), now(5), admin, 20_971, 's2')).text);
  expect(lines.map(({ kind }) => kind)).toContain('action');
  expect(lines.find(({ action }) => action === 'tunnel.suspended')).toMatchObject({
    tunnelId: id,
    clientAddress: '127.0.0.1',
  });
  expect(linesOf((await evidence(now(-5), now(5), admin, 20_972, 's2')).text).map(({ kind }) => kind)).toEqual([
    'export',
    'end',
  ]);
});

it('is refused for long windows, and to users, and then not in the audit log', async () => {
  const count = async () => (await admin.get('/api/v1/admin/audit?action=evidence.exported')).body.items.length;
  const before = await count();
  expect((await evidence('2026-01-01T00:00:00Z', '2026-03-01T00:00:00Z')).status).toBe(400);
  expect((await evidence('2026-01-02T00:00:00Z', '2026-01-01T00:00:00Z')).status).toBe(400);
  expect((await evidence('2026-01-01T00:00:00Z', '2026-01-02T00:00:00Z', await plane.newUser())).status).toBe(403);
  expect((await admin.get(`/api/v1/admin/evidence?serverId=s1&port=${PORT}&x=${randomUUID()}`)).status).toBe(400);
  expect(await count()).toBe(before);
});
