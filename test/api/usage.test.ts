import { randomUUID } from 'node:crypto';

import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { SessionRef } from '../../src/protocol/plane-api.js';
import type { ConnectionRecord, Report, UsageDelta } from '../../src/protocol/reports.js';
import { comingAgain } from '../harness/coming-again.js';
import { ControlPlane } from './control-plane.js';
import type { PlaneClient } from './plane-client.js';
import { inTransaction, somebodyWaits } from './transaction.js';

let plane: ControlPlane;
let server: PlaneClient;
let foreign: PlaneClient;

beforeAll(async () => {
  plane = await ControlPlane.start({ backends: 3 });
  server = await plane.newServer('s1', 10_000, 200);
  foreign = await plane.newServer('s2', 11_000, 200);
});

afterAll(() => plane?.stop());

/** A tunnel of the server whose ports begin at `base`. */
let next = 0;
async function openAt(base: number): Promise<string> {
  const user = await plane.newUser();
  const { body } = await user.post('/api/v1/tunnels', { port: base + next++ });
  return body.id;
}

const delta = (tunnelId: string, bytesIn: number, bytesOut = 0, connections = 0): UsageDelta => ({
  tunnelId,
  bytesIn,
  bytesOut,
  connections,
});

function record(tunnelId: string, more: Partial<ConnectionRecord> = {}): ConnectionRecord {
  const now = new Date().toISOString();
  return {
    id: randomUUID(),
    tunnelId,
    visitorAddress: '198.51.100.7',
    visitorPort: 50_000,
    startedAt: now,
    endedAt: now,
    setupMs: 1.5,
    bytesIn: 1,
    bytesOut: 2,
    reason: 'visitor_closed',
    ...more,
  };
}

const report = (
  reporterId: string,
  sequence: number,
  usage: UsageDelta[],
  connections: ConnectionRecord[] = [],
): Report => ({
  reporterId,
  sequence,
  usage,
  connections,
});

/** What the books say of a tunnel, over all hours. */
async function booked(
  tunnelId: string,
): Promise<{ bytesIn: number; bytesOut: number; connections: number; records: number }> {
  const [row] = await plane.database.query(
    `SELECT coalesce(sum(bytes_in), 0) AS i, coalesce(sum(bytes_out), 0) AS o, coalesce(sum(connections), 0) AS c,
       (SELECT count(*) FROM tunnel_connections WHERE tunnel_id = $1) AS r
     FROM tunnel_usage WHERE tunnel_id = $1`,
    [tunnelId],
  );
  return { bytesIn: Number(row?.i), bytesOut: Number(row?.o), connections: Number(row?.c), records: Number(row?.r) };
}

describe('a report', () => {
  it('counts once, though it comes 30 times at once over 3 backends, and is acknowledged each time', async () => {
    const tunnelId = await openAt(10_000);
    const sent = report(
      randomUUID(),
      2 ** 53 - 1,
      [delta(tunnelId, 100, 200, 3)],
      [record(tunnelId), record(tunnelId)],
    );
    const answers = await Promise.all(
      Array.from({ length: 30 }, (_, i) => server.beat({ report: sent, url: plane.url(i) })),
    );
    expect(answers.map(({ status, body }) => [status, body.reported])).toEqual(
      Array.from({ length: 30 }, () => [200, 2 ** 53 - 1]),
    );
    expect(await booked(tunnelId)).toEqual({ bytesIn: 100, bytesOut: 200, connections: 3, records: 2 });
  });

  it('that is old is acknowledged and changes nothing, whatever it says now', async () => {
    const tunnelId = await openAt(10_000);
    const reporterId = randomUUID();
    await server.beat({ report: report(reporterId, 10, [delta(tunnelId, 1)]) });
    await server.beat({ report: report(reporterId, 20, [delta(tunnelId, 2)]) });
    const late = await server.beat({ report: report(reporterId, 15, [delta(tunnelId, 1000)], [record(tunnelId)]) });
    expect(late.body.reported).toBe(15);
    expect(await booked(tunnelId)).toEqual({ bytesIn: 3, bytesOut: 0, connections: 0, records: 0 });
  });

  it('counts also with a heartbeat that comes late, behind a later one', async () => {
    const tunnelId = await openAt(10_000);
    await server.beat();
    const late = await server.beat({ sequence: 1, report: report(randomUUID(), 1, [delta(tunnelId, 7)]) });
    expect(late).toMatchObject({ status: 200, body: { reported: 1, close: [], update: [] } });
    expect((await booked(tunnelId)).bytesIn).toBe(7);
  });

  it('counts also from a process that another has superseded, which is told so', async () => {
    const older = await plane.newServer('fenced', 12_000, 10);
    const user = await plane.newUser();
    const { id } = (await user.post('/api/v1/tunnels', { port: 12_001 })).body;
    const newer = await plane.newServer('fenced', 12_000, 10);
    const sent = report(randomUUID(), 5, [delta(id, 11)], [record(id)]);
    for (let i = 0; i < 3; i++) {
      expect(await older.beat({ report: sent })).toMatchObject({ status: 409, body: { code: 'SERVER_SUPERSEDED' } });
    }
    await newer.beat({ report: report(randomUUID(), 5, [delta(id, 22)]) });
    expect(await booked(id)).toEqual({ bytesIn: 33, bytesOut: 0, connections: 0, records: 1 });
  });

  it('of a server that is not registered changes nothing, so that it counts when it is', async () => {
    const unknown = await plane.newServer('unknown', 12_100, 10);
    const user = await plane.newUser();
    const { id } = (await user.post('/api/v1/tunnels', { port: 12_101 })).body;
    await plane.database.query(`UPDATE servers SET instance_id = NULL WHERE id = 'unknown'`);
    const sent = report(randomUUID(), 1, [delta(id, 5)]);
    expect(await unknown.beat({ report: sent })).toMatchObject({ status: 404, body: { code: 'SERVER_UNKNOWN' } });
    expect((await booked(id)).bytesIn).toBe(0);
    await unknown.register();
    expect((await unknown.beat({ report: sent })).body.reported).toBe(1);
    expect((await booked(id)).bytesIn).toBe(5);
  });

  it('says nothing about tunnels of other servers, nor about tunnels that are none', async () => {
    const [mine, theirs] = [await openAt(10_000), await openAt(11_000)];
    const nobodys = randomUUID();
    const usage = [delta(theirs, 1), delta(mine, 2), delta(nobodys, 3)];
    const sent = report(randomUUID(), 1, usage, [record(theirs), record(mine), record(nobodys)]);
    expect((await server.beat({ report: sent })).body.reported).toBe(1);
    expect(await booked(mine)).toMatchObject({ bytesIn: 2, records: 1 });
    expect(await booked(theirs)).toMatchObject({ bytesIn: 0, records: 0 });
  });

  it('is refused from a reporter that belongs to another server, and logged', async () => {
    const [mine, theirs] = [await openAt(10_000), await openAt(11_000)];
    const reporterId = randomUUID();
    await server.beat({ report: report(reporterId, 1, [delta(mine, 1)]) });
    const stolen = await foreign.beat({ report: report(reporterId, 2, [delta(theirs, 2)]), url: plane.url(0) });
    expect(stolen).toMatchObject({ status: 200, body: { reported: null } });
    expect((await booked(theirs)).bytesIn).toBe(0);
    await plane.backends[0]?.waitFor(reporterId);
    // and its owner goes on from where it was
    await server.beat({ report: report(reporterId, 2, [delta(mine, 4)]) });
    expect((await booked(mine)).bytesIn).toBe(5);
  });

  it('counts for a tunnel that was closed meanwhile, and for one that stands in it twice', async () => {
    const user = await plane.newUser();
    const { id } = (await user.post('/api/v1/tunnels', { port: 10_150 })).body;
    await user.delete(`/api/v1/tunnels/${id}`);
    await server.beat({ report: report(randomUUID(), 1, [delta(id, 5, 1, 1), delta(id, 6, 2, 2)]) });
    expect(await booked(id)).toMatchObject({ bytesIn: 11, bytesOut: 3, connections: 3 });
  });

  it('that would pass what JSON can count leaves the count standing there, and the next one is taken', async () => {
    const user = await plane.newUser();
    const { id } = (await user.post('/api/v1/tunnels', { port: 10_151 })).body;
    const reporterId = randomUUID();
    const huge = delta(id, Number.MAX_SAFE_INTEGER);
    await server.beat({ report: report(reporterId, 1, [huge, huge]) });
    expect((await server.beat({ report: report(reporterId, 2, [huge]) })).body.reported).toBe(2);
    const usage = await user.get(`/api/v1/tunnels/${id}/usage`);
    expect(usage).toMatchObject({ status: 200, body: { total: { bytesIn: Number.MAX_SAFE_INTEGER } } });
  });

  it('with more records than a report may hold is refused', async () => {
    const tunnelId = await openAt(10_000);
    const records = Array.from({ length: 2_001 }, () => record(tunnelId));
    expect((await server.beat({ report: report(randomUUID(), 1, [], records) })).status).toBe(400);
    const most = await server.beat({ report: report(randomUUID(), 1, [], records.slice(1)) });
    expect(most.body.reported).toBe(1);
    expect((await booked(tunnelId)).records).toBe(2_000);
  });
});

describe('reports, heartbeats, changes and closings of the same tunnels at once', () => {
  it('wait for each other in no circle: none is answered with anything but success', { timeout: 120_000 }, async () => {
    const reporters = [randomUUID(), randomUUID(), randomUUID()];
    let sequence = 0;
    for (let round = 0; round < 8; round++) {
      const user = await plane.newUser();
      const ids: string[] = [];
      const sessions: SessionRef[] = [];
      for (let i = 0; i < 10; i++) {
        const { id, token } = (await user.post('/api/v1/tunnels', { port: 10_100 + i })).body;
        ids.push(id);
        sessions.push((await server.authorize(token, 10_100 + i)).body);
      }
      const beats = Array.from({ length: 20 }, async (_, i) => {
        const order = i % 4 < 2 ? ids : ids.toReversed();
        const reporterId = reporters[i % 3] ?? '';
        const connections = order.map((id) => record(id));
        const sent = report(
          reporterId,
          ++sequence,
          order.map((id) => delta(id, 1)),
          connections,
        );
        // each turns all of its sessions on, or all of them off
        const beat = { ...(i % 2 ? { sessions } : { ended: sessions }), report: sent, url: plane.url(i) };
        return comingAgain(() => server.beat(beat));
      });
      const changes = ids.map((id, i) =>
        comingAgain(() => user.at(plane.url(i)).patch(`/api/v1/tunnels/${id}`, { maxConnections: i + 1 })),
      );
      const closings = ids
        .toReversed()
        .map((id, i) => comingAgain(() => user.at(plane.url(i)).delete(`/api/v1/tunnels/${id}`)));
      const answers = await Promise.all([...beats, ...changes, ...closings]);
      // 409: the tunnel was closed first
      expect(answers.map(({ status }) => status).filter((status) => ![200, 204, 409].includes(status))).toEqual([]);
    }
    expect(plane.backends.map((backend) => backend.output()).join('')).not.toContain('deadlock');
  });
});

describe('a tunnel and the row of its server', () => {
  it('are locked server first by a closing, as by a heartbeat: neither waits for the other in a circle', async () => {
    const user = await plane.newUser();
    const { id } = (await user.post('/api/v1/tunnels', { port: 10_160 })).body;
    await inTransaction(plane.database, async (heartbeat) => {
      await heartbeat.query(`SELECT FROM servers WHERE id = 's1' FOR NO KEY UPDATE`);
      const closing = user.delete(`/api/v1/tunnels/${id}`);
      await somebodyWaits(plane.database);
      await heartbeat.query(`UPDATE tunnels SET client_address = 'x' WHERE id = $1`, [id]);
      await heartbeat.query('COMMIT');
      expect((await closing).status).toBe(204);
    });
  });

  it('are not locked by a report: a large one holds up no admission', async () => {
    const user = await plane.newUser();
    const { id } = (await user.post('/api/v1/tunnels', { port: 10_161 })).body;
    const reporterId = randomUUID();
    await server.beat({ report: report(reporterId, 1, [delta(id, 1)]) });
    await inTransaction(plane.database, async (client) => {
      // whoever enters this reporter's next report waits here, in the middle of it
      await client.query(`SELECT FROM usage_reporters WHERE reporter_id = $1 FOR UPDATE`, [reporterId]);
      const reporting = server.beat({ report: report(reporterId, 2, [delta(id, 2)]) });
      await somebodyWaits(plane.database);
      expect((await user.post('/api/v1/tunnels', { port: 10_162 })).status).toBe(201);
      expect((await user.delete(`/api/v1/tunnels/${id}`)).status).toBe(204);
      await client.query('COMMIT');
      expect((await reporting).body.reported).toBe(2);
    });
    expect((await booked(id)).bytesIn).toBe(3);
  });
});

/** One step of a reporter's life. */
const step = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constant('report' as const), tunnel: fc.nat(2), bytes: fc.nat(1_000_000) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom('answer is lost' as const, 'sent twice at once' as const, 'old one arrives' as const),
      pick: fc.nat(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('restart' as const, 'new book' as const) }) },
);

describe('random histories of reports', () => {
  it('leave in the books what was reported, to the byte (G4)', { timeout: 120_000 }, async () => {
    const tunnels = await Promise.all([openAt(10_000), openAt(10_000), openAt(11_000)]);
    const expected = tunnels.map(() => ({ bytes: 0, records: 0 }));
    let process_ = server;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 20 }), async (steps) => {
        let reporterId = randomUUID();
        let sequence = Date.now();
        const old: Report[] = [];
        for (const [n, action] of steps.entries()) {
          const last = old.at(-1);
          if (action.do === 'report') {
            const tunnelId = tunnels[action.tunnel] ?? '';
            const sent = report(reporterId, ++sequence, [delta(tunnelId, action.bytes)], [record(tunnelId)]);
            expect((await process_.beat({ report: sent, url: plane.url(n) })).body.reported).toBe(sequence);
            old.push(sent);
            const entry = expected[action.tunnel];
            // the third tunnel is of another server: what this one says about it does not count
            if (entry && action.tunnel < 2) {
              entry.bytes += action.bytes;
              entry.records++;
            }
          } else if (action.do === 'restart') {
            process_ = await plane.newServer('s1', 10_000, 200);
          } else if (action.do === 'new book') {
            reporterId = randomUUID();
          } else if (last) {
            const again = action.do === 'old one arrives' ? (old[action.pick % old.length] ?? last) : last;
            const times = action.do === 'sent twice at once' ? 2 : 1;
            const answers = await Promise.all(
              Array.from({ length: times }, (_, i) => process_.beat({ report: again, url: plane.url(n + i) })),
            );
            for (const { body } of answers) expect(body.reported).toBe(again.sequence);
          }
        }
        for (const [i, tunnelId] of tunnels.entries()) {
          const books = await booked(tunnelId);
          expect({ bytes: books.bytesIn, records: books.records }).toEqual(expected[i]);
        }
      }),
      { numRuns: 40 },
    );
  });
});
