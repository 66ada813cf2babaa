import { randomUUID } from 'node:crypto';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { ConnectionEndReason, ConnectionRecord } from '../../src/protocol/reports.js';
import type { Api } from '../harness/api.js';
import { until } from '../harness/until.js';
import { ControlPlane } from './control-plane.js';
import type { PlaneClient } from './plane-client.js';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

let plane: ControlPlane;
let server: PlaneClient;
let user: Api;
let sequence = 0;
const reporterId = randomUUID();

beforeAll(async () => {
  // records are looked at every 12th interval: housekeeping.processor.ts
  const env = { HOUSEKEEPING_INTERVAL_MS: '50', CONNECTION_RETENTION_DAYS: '30', USAGE_RETENTION_DAYS: '400' };
  plane = await ControlPlane.start({ env });
  server = await plane.newServer('s1', 10_000);
  user = await plane.newUser();
});

afterAll(() => plane?.stop());

const open = async (): Promise<string> => (await user.post('/api/v1/tunnels', {})).body.id;

function record(tunnelId: string, endedAt: Date, reason: ConnectionEndReason = 'visitor_closed'): ConnectionRecord {
  return {
    id: randomUUID(),
    tunnelId,
    visitorAddress: '2001:db8::7',
    visitorPort: 50_000,
    startedAt: new Date(endedAt.getTime() - 1500).toISOString(),
    endedAt: endedAt.toISOString(),
    setupMs: 2.25,
    bytesIn: 3_000_000_000,
    bytesOut: 9_007_199_254_740_991,
    reason,
  };
}

async function report(connections: ConnectionRecord[]): Promise<void> {
  const { body } = await server.beat({ report: { reporterId, sequence: ++sequence, usage: [], connections } });
  expect(body.reported).toBe(sequence);
}

const connections = (id: string, query = '') => user.get(`/api/v1/tunnels/${id}/connections${query}`);
const usage = (id: string, query = '') => user.get(`/api/v1/tunnels/${id}/usage${query}`);
const idsOf = (answer: { body: { items: { id: string }[] } }) => answer.body.items.map(({ id }) => id);

describe('the connections of a tunnel', () => {
  it('are listed as they were reported, numbers as numbers', async () => {
    const id = await open();
    const sent = record(id, new Date(Date.now() - 1000));
    const neverFetched = { ...record(id, new Date(), 'not_fetched'), setupMs: null };
    await report([sent, neverFetched]);
    const { tunnelId: _, ...view } = sent;
    const { tunnelId: __, ...second } = neverFetched;
    expect((await connections(id)).body).toEqual({ items: [second, view], nextCursor: null });
  });

  it('are paged newest end first without gap or repeat, also where many end at one moment, while more come', async () => {
    const id = await open();
    const now = Date.now();
    // seven moments, several ends at each
    const sent = Array.from({ length: 50 }, (_, i) => record(id, new Date(now - (i % 7) * 1000)));
    await report(sent);
    const expected = sent
      .toSorted((a, b) => (a.endedAt === b.endedAt ? (a.id < b.id ? 1 : -1) : a.endedAt < b.endedAt ? 1 : -1))
      .map((item) => item.id);
    const seen: string[] = [];
    let cursor: string | null = '';
    while (cursor !== null) {
      const page = await connections(id, `?limit=9${cursor && `&cursor=${cursor}`}`);
      seen.push(...idsOf(page));
      cursor = page.body.nextCursor;
      await report([record(id, new Date(now + 60_000))]);
    }
    expect(seen).toEqual(expected);
  });

  it('are filtered by why and when they ended', async () => {
    const id = await open();
    const at = (minutes: number) => new Date(Date.UTC(2026, 0, 1, 0, minutes));
    const recent = (minutes: number) => new Date(Date.now() - 3 * HOUR_MS + minutes * 60_000);
    const sent = [
      record(id, recent(0), 'limit'),
      record(id, recent(1), 'visitor_closed'),
      record(id, recent(2), 'limit'),
      record(id, recent(3), 'limit'),
    ];
    await report(sent);
    const id_ = (i: number) => sent[i]?.id;
    expect(idsOf(await connections(id, '?reason=limit'))).toEqual([id_(3), id_(2), id_(0)]);
    const range = `from=${sent[1]?.endedAt}&to=${sent[3]?.endedAt}`;
    expect(idsOf(await connections(id, `?${range}`))).toEqual([id_(2), id_(1)]);
    const first = await connections(id, `?reason=limit&to=${sent[3]?.endedAt}&limit=1`);
    expect(idsOf(first)).toEqual([id_(2)]);
    const rest = `?reason=limit&to=${sent[3]?.endedAt}&limit=1&cursor=${first.body.nextCursor}`;
    expect(await connections(id, rest)).toMatchObject({ body: { items: [{ id: id_(0) }], nextCursor: null } });
    expect(idsOf(await connections(id, `?to=${at(0).toISOString()}`))).toEqual([]);
  });

  it.each([
    'limit=0',
    'limit=101',
    'cursor=nonsense',
    `cursor=${Buffer.from('2026-01-01T00:00:00Z').toString('base64url')}`,
    `cursor=${Buffer.from(`9 ${randomUUID()}`).toString('base64url')}`,
    'reason=boredom',
    'from=yesterday',
    'from=0001-01-01T00:00:00Z',
    `to=2026-01-01T00:00:00.${'0'.repeat(100)}Z`,
    'unknown=1',
  ])('are not listed for %s', async (query) => {
    expect(await connections(await open(), `?${query}`)).toMatchObject({
      status: 400,
      body: { code: 'VALIDATION_FAILED' },
    });
  });
});

describe('the usage of a tunnel', () => {
  const book = (id: string, hour: string, bytesIn: number) =>
    plane.database.query('INSERT INTO tunnel_usage VALUES ($1, $2, $3, $4, 1)', [id, hour, bytesIn, bytesIn * 2]);

  it('is shown in hours and days (UTC), the empty ones too, with the sum of what is shown', async () => {
    const id = await open();
    await book(id, '2126-03-01T22:00:00Z', 1);
    await book(id, '2126-03-01T23:00:00Z', 10);
    await book(id, '2126-03-02T00:00:00Z', 100);
    await book(id, '2126-03-04T12:00:00Z', 5_000_000_000);
    const days = await usage(id, '?bucket=day&from=2126-03-01T15:00:00Z&to=2126-03-05T00:00:00Z');
    expect(days.body).toEqual({
      total: { bytesIn: 5_000_000_111, bytesOut: 10_000_000_222, connections: 4 },
      buckets: [
        { start: '2126-03-01T00:00:00.000Z', bytesIn: 11, bytesOut: 22, connections: 2 },
        { start: '2126-03-02T00:00:00.000Z', bytesIn: 100, bytesOut: 200, connections: 1 },
        { start: '2126-03-03T00:00:00.000Z', bytesIn: 0, bytesOut: 0, connections: 0 },
        { start: '2126-03-04T00:00:00.000Z', bytesIn: 5_000_000_000, bytesOut: 10_000_000_000, connections: 1 },
      ],
    });
    const hours = await usage(id, '?bucket=hour&from=2126-03-01T22:30:00Z&to=2126-03-02T00:00:00Z');
    expect(hours.body).toMatchObject({
      total: { bytesIn: 11 },
      buckets: [
        { start: '2126-03-01T22:00:00.000Z', bytesIn: 1 },
        { start: '2126-03-01T23:00:00.000Z', bytesIn: 10 },
      ],
    });
  });

  it('ends now and begins 24 hours or 30 days before, when nothing else is asked for', async () => {
    const id = await open();
    const delta = { tunnelId: id, bytesIn: 5, bytesOut: 6, connections: 7 };
    await server.beat({ report: { reporterId, sequence: ++sequence, usage: [delta], connections: [] } });
    for (const [query, count] of [
      ['', 30],
      ['?bucket=hour', 24],
    ] as const) {
      const { body } = await usage(id, query);
      expect(body.buckets).toHaveLength(count);
      expect(body.total).toEqual({ bytesIn: 5, bytesOut: 6, connections: 7 });
    }
  });

  it('is refused where the buckets would be none or too many', async () => {
    const id = await open();
    const refused = { status: 400, body: { code: 'VALIDATION_FAILED', errors: [{ path: 'from' }] } };
    expect(await usage(id, '?from=2026-01-02T00:00:00Z&to=2026-01-02T00:00:00Z')).toMatchObject(refused);
    expect(await usage(id, '?bucket=hour&from=2026-01-01T00:00:00Z&to=2026-02-11T17:00:00Z')).toMatchObject(refused);
    expect(
      (await usage(id, '?bucket=hour&from=2026-01-01T00:00:00Z&to=2026-02-11T16:00:00Z')).body.buckets,
    ).toHaveLength(1000);
    expect(await usage(id, '?from=9999-01-01T00:00:00Z')).toMatchObject(refused);
    expect((await usage(id, '?to=1970-01-02T00:00:00Z')).body.buckets).toHaveLength(1);
    expect(await usage(id, '?bucket=minute')).toMatchObject({ status: 400 });
  });
});

describe('what crossed a tunnel', () => {
  it('is there after the tunnel was closed, for its owner and for nobody else', async () => {
    const id = await open();
    await report([record(id, new Date())]);
    await user.delete(`/api/v1/tunnels/${id}`);
    expect(idsOf(await connections(id))).toHaveLength(1);
    expect((await usage(id)).status).toBe(200);
    const others = [await plane.newUser(), await plane.admin()];
    for (const other of others) {
      for (const what of ['connections', 'usage']) {
        const answer = await other.get(`/api/v1/tunnels/${id}/${what}`);
        expect(answer).toMatchObject({ status: 404, body: { code: 'NOT_FOUND' } });
      }
    }
    expect((await user.get(`/api/v1/tunnels/${randomUUID()}/usage`)).status).toBe(404);
  });

  it('is forgotten when it is older than it is to be kept, and not a day earlier', async () => {
    const id = await open();
    const ago = (days: number) => new Date(Date.now() - days * DAY_MS);
    const kept = [record(id, ago(29)), record(id, ago(1))];
    await report([record(id, ago(31)), record(id, ago(300)), ...kept]);
    for (const days of [401, 500, 399, 1]) {
      await plane.database.query(`INSERT INTO tunnel_usage VALUES ($1, date_trunc('hour', $2::timestamptz), 1, 1, 1)`, [
        id,
        ago(days).toISOString(),
      ]);
    }
    const [stale, fresh] = [randomUUID(), randomUUID()];
    await plane.database.query(
      `INSERT INTO usage_reporters VALUES ($1, 's1', 1, now() - interval '91 days'), ($2, 's1', 1, now() - interval '89 days')`,
      [stale, fresh],
    );
    const old = `
      SELECT id::text FROM tunnel_connections WHERE ended_at < now() - interval '30 days'
      UNION ALL SELECT tunnel_id::text FROM tunnel_usage WHERE hour < now() - interval '400 days'
      UNION ALL SELECT reporter_id::text FROM usage_reporters WHERE updated_at < now() - interval '90 days'`;
    await until(async () => (await plane.database.query(old)).length === 0, 'old records are gone');
    expect(idsOf(await connections(id))).toEqual([kept[1]?.id, kept[0]?.id]);
    const [hours] = await plane.database.query('SELECT count(*)::int AS n FROM tunnel_usage WHERE tunnel_id = $1', [
      id,
    ]);
    expect(hours?.['n']).toBe(2);
    const reporters = await plane.database.query('SELECT reporter_id FROM usage_reporters');
    expect(reporters.map((row) => row['reporter_id'])).toEqual(expect.arrayContaining([fresh, reporterId]));
  });
});
