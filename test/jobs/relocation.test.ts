/** Tunnels of lost servers are moved, once and for good: against doubled jobs, full servers, deletions, and an old server that returns. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { ControlPlane } from '../api/control-plane.js';
import type { PlaneClient } from '../api/plane-client.js';
import type { Api } from '../harness/api.js';
import { randomUuid } from '../../src/protocol/challenge.js';
import { comingAgain } from '../harness/coming-again.js';
import { until } from '../harness/until.js';

interface Opened {
  readonly id: string;
  readonly token: string;
  readonly port: number;
  readonly serverId: string;
}

let plane: ControlPlane;
let user: Api;
let servers = 0;

beforeAll(async () => {
  const env = { HOUSEKEEPING_INTERVAL_MS: '100', SERVER_LOST_GRACE: '1', RESERVED_CAPACITY_PERCENT: '50' };
  plane = await ControlPlane.start({ backends: 3, env });
});

afterAll(() => plane?.stop());

beforeEach(async () => {
  user = await plane.newUser();
  // what earlier tests have left takes no part
  return async () => {
    await plane.database.query(`UPDATE tunnels SET relocate = false`);
    await plane.database.query(`UPDATE servers SET drain_requested = true, state = 'draining' WHERE state = 'online'`);
  };
});

/** A server of its own location, so that nothing else is placed there first. */
function newServer(ports = 100, from = 20_000): Promise<PlaneClient> {
  return plane.newServer(`s${++servers}`, from, ports);
}

async function open(body: object = {}): Promise<Opened> {
  const answer = await user.post('/api/v1/tunnels', { relocate: true, ...body });
  expect(answer.status).toBe(201);
  return answer.body;
}

/** The lease of a server ends, as if its last heartbeat were long ago. */
async function lose({ serverId }: PlaneClient): Promise<void> {
  await plane.database.query(`UPDATE servers SET lease_until = now() - interval '1 hour' WHERE id = $1`, [serverId]);
}

async function tunnelOf({ id }: Opened): Promise<Opened & { state: string }> {
  return (await user.get(`/api/v1/tunnels/${id}`)).body;
}

async function moved(tunnel: Opened, to: PlaneClient): Promise<Opened & { state: string }> {
  await until(async () => (await tunnelOf(tunnel)).serverId === to.serverId, 'it is moved');
  return tunnelOf(tunnel);
}

async function slotsOf({ serverId }: PlaneClient): Promise<unknown> {
  return (await plane.database.query(`SELECT open_tunnels FROM servers WHERE id = $1`, [serverId]))[0]?.[
    'open_tunnels'
  ];
}

const relocations = ({ id }: Opened) =>
  plane.database.query(`SELECT details FROM audit_log WHERE action = 'tunnel.relocated' AND target_id = $1`, [id]);
const wrongCounters = () => plane.database.query(`SELECT * FROM wrong_open_tunnels()`);

describe('a tunnel of a lost server', () => {
  it('moves to another after the grace, with its port and its key; one that does not allow it stays, with its port kept', async () => {
    const old = await newServer();
    const [follows, stays] = [await open(), await open({ relocate: false })];
    const grant = (await old.authorize(follows.token, follows.port)).body;
    await old.authorize(stays.token, stays.port);
    const next = await newServer();
    const before = performance.now();
    await lose(old);
    expect(await moved(follows, next)).toMatchObject({ state: 'offline', port: follows.port });
    expect(performance.now() - before).toBeGreaterThan(900);
    const { body } = await next.authorize(follows.token, follows.port);
    expect(body).toMatchObject({ tunnelId: follows.id, port: follows.port });
    expect(body.epoch).toBeGreaterThan(grant.epoch + 1000);
    expect((await tunnelOf(follows)).state).toBe('active');
    expect(await tunnelOf(stays)).toMatchObject({ state: 'offline', serverId: old.serverId, port: stays.port });
    expect([await slotsOf(old), await slotsOf(next)]).toEqual([1, 1]);
    expect(await relocations(follows)).toEqual([
      { details: { fromServerId: old.serverId, fromPort: follows.port, serverId: next.serverId, port: follows.port } },
    ]);
    expect(await wrongCounters()).toEqual([]);
  });

  it('gets another port where its own is taken, or is none of the new server', async () => {
    const next = await newServer(2, 20_000);
    const taken = await open({ relocate: false });
    const old = await newServer(100, 20_000);
    await plane.database.query(`UPDATE servers SET state = 'draining', drain_requested = true WHERE id = $1`, [
      next.serverId,
    ]);
    const tunnel = await open({ port: taken.port });
    await plane.database.query(`UPDATE servers SET state = 'online', drain_requested = false WHERE id = $1`, [
      next.serverId,
    ]);
    await lose(old);
    expect((await moved(tunnel, next)).port).toBe(taken.port === 20_000 ? 20_001 : 20_000);
  });

  it('prefers a server of its location', async () => {
    const old = await newServer();
    await old.register({ location: 'here' });
    const tunnel = await open();
    const elsewhere = await newServer();
    const here = await newServer();
    await here.register({ location: 'here' });
    // with a better score
    await elsewhere.register({ location: 'there', maxTunnels: 90 });
    const other = await user.post('/api/v1/tunnels', { location: 'here' });
    expect(other.status).toBe(201);
    await lose(old);
    await moved(tunnel, here);
  });

  it('is moved once, whatever number of jobs do it', async () => {
    const old = await newServer();
    const tunnels = await Promise.all(Array.from({ length: 20 }, () => open()));
    await newServer();
    await newServer();
    await lose(old);
    // beside the jobs of three backends
    const rounds: unknown[][] = [];
    await until(async () => {
      const calls = Array.from({ length: 12 }, () =>
        plane.database.query(`SELECT * FROM relocate_tunnels(0, 60, '{}', 7)`),
      );
      rounds.push(...(await Promise.all(calls)));
      return (await slotsOf(old)) === 0;
    }, 'all are moved');
    const byJobs = (await Promise.all(tunnels.map((tunnel) => relocations(tunnel)))).flat();
    expect(rounds.flat().length + byJobs.length).toBe(20);
    expect(rounds.flat().length).toBeGreaterThan(0);
    const places = await plane.database.query(
      `SELECT DISTINCT server_id, port FROM tunnels WHERE id = ANY ($1::uuid[]) AND server_id <> $2 AND state = 'pending'`,
      [tunnels.map(({ id }) => id), old.serverId],
    );
    expect(places.length).toBe(20);
    expect(await wrongCounters()).toEqual([]);
  });

  it('stays while there is room nowhere, and moves when there is; the reserved share is for it', async () => {
    const old = await newServer();
    const tunnels = [await open(), await open(), await open()];
    const full = await newServer();
    await full.register({ maxTunnels: 2 });
    await lose(old);
    await until(async () => (await slotsOf(full)) === 2, 'two of them fill the only server, its reserve included');
    expect((await user.post('/api/v1/tunnels', {})).body.code).toBe('NO_CAPACITY');
    const left = (await Promise.all(tunnels.map(tunnelOf))).filter(({ serverId }) => serverId === old.serverId);
    expect(left).toMatchObject([{ state: 'pending' }]);
    const next = await newServer();
    for (const tunnel of left) await moved(tunnel, next);
    expect(await wrongCounters()).toEqual([]);
  });

  it('that is deleted meanwhile is closed, and nothing is left of it', async () => {
    const old = await newServer();
    const tunnels = await Promise.all(Array.from({ length: 20 }, () => open()));
    const next = await newServer();
    await lose(old);
    await until(
      async () =>
        (await plane.database.query(`SELECT FROM servers WHERE id = $1 AND lost_at IS NOT NULL`, [old.serverId]))
          .length,
      'it is lost',
    );
    const [deleted] = await Promise.all([
      Promise.all(tunnels.map(({ id }) => comingAgain(() => user.delete(`/api/v1/tunnels/${id}`)))),
      ...Array.from({ length: 20 }, () => plane.database.query(`SELECT * FROM relocate_tunnels(0, 60, '{}', 1)`)),
    ]);
    expect(new Set(deleted.map(({ status }) => status))).toEqual(new Set([204]));
    for (const tunnel of tunnels) expect((await tunnelOf(tunnel)).state).toBe('closed');
    expect([await slotsOf(old), await slotsOf(next)]).toEqual([0, 0]);
    expect(await wrongCounters()).toEqual([]);
  });
});

describe('an old server that returns', () => {
  it('is told to end what it carries of a moved tunnel; what it says changes nothing but the usage, which is counted', async () => {
    const old = await newServer();
    const tunnel = await open();
    const { body: session } = await old.authorize(tunnel.token, tunnel.port);
    const next = await newServer();
    await lose(old);
    await moved(tunnel, next);
    const { body: present } = await next.authorize(tunnel.token, tunnel.port);

    // it let the client in again and again while it was cut off
    const late = { ...session, epoch: session.epoch + 50 };
    const usage = [{ tunnelId: tunnel.id, bytesIn: 5, bytesOut: 7, connections: 1 }];
    const report = { reporterId: randomUuid(), sequence: 1, usage, connections: [] };
    const { body } = await old.beat({ sessions: [late], kept: [], ended: [session], report });
    expect(body.close).toMatchObject([{ tunnelId: tunnel.id, sessionId: late.sessionId, reason: 'relocated' }]);
    const kept = await old.beat({ kept: [late] });
    expect(kept.body.fences).toMatchObject([{ tunnelId: tunnel.id, reason: 'relocated' }]);
    expect(await tunnelOf(tunnel)).toMatchObject({ state: 'active', serverId: next.serverId });
    const rows = await plane.database.query(`SELECT session_id, epoch FROM tunnels WHERE id = $1`, [tunnel.id]);
    expect(rows).toEqual([{ session_id: present.sessionId, epoch: present.epoch }]);
    expect((await old.authorize(tunnel.token, tunnel.port)).status).not.toBe(200);
    expect([await slotsOf(old), await slotsOf(next)]).toEqual([0, 1]);
    const counted = await user.get(`/api/v1/tunnels/${tunnel.id}/usage`);
    expect(counted.body.total).toEqual({ bytesIn: 5, bytesOut: 7, connections: 1 });
  });

  it('within its grace keeps its tunnels: it is counted from when the loss was noticed, not from the last heartbeat', async () => {
    const patient = await ControlPlane.start({ env: { HOUSEKEEPING_INTERVAL_MS: '100', SERVER_LOST_GRACE: '3000' } });
    try {
      const old = await patient.newServer('old', 20_000);
      user = await patient.newUser();
      const tunnel = await open();
      await patient.newServer('other', 20_000);
      // an hour without a control plane: longer than the grace
      await patient.database.query(`UPDATE servers SET lease_until = now() - interval '1 hour' WHERE id = 'old'`);
      const state = async () => (await patient.database.query(`SELECT state::text FROM servers WHERE id = 'old'`))[0];
      await until(async () => (await state())?.['state'] === 'offline', 'it is lost');
      expect(await patient.database.query(`SELECT * FROM relocate_tunnels(3000, 60, '{}', 7)`)).toEqual([]);
      await old.beat();
      expect(await patient.database.query(`SELECT state::text, lost_at FROM servers WHERE id = 'old'`)).toEqual([
        { state: 'online', lost_at: null },
      ]);
      expect((await tunnelOf(tunnel)).serverId).toBe('old');
    } finally {
      await patient.stop();
    }
  });
});
