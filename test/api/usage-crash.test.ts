import { randomInt, randomUUID } from 'node:crypto';

import { afterAll, beforeAll, expect, it } from 'vitest';

import type { ConnectionRecord, Report } from '../../src/protocol/reports.js';
import { until } from '../harness/until.js';
import { ControlPlane } from './control-plane.js';
import type { PlaneClient } from './plane-client.js';

const KILLS = 24;
/** Reports under way at once: enough that each kill finds some in the middle. */
const REPORTERS = 6;
const TUNNELS = 5;

let plane: ControlPlane;
let server: PlaneClient;
const tunnels: string[] = [];

beforeAll(async () => {
  plane = await ControlPlane.start({ backends: 2 });
  server = await plane.newServer('s1', 10_000, 100);
  const user = await plane.newUser();
  for (let i = 0; i < TUNNELS; i++) tunnels.push((await user.post('/api/v1/tunnels', {})).body.id);
});

afterAll(() => plane?.stop());

interface Sums {
  bytesIn: number;
  bytesOut: number;
  connections: number;
  records: number;
}

const sent = new Map<string, Sums>();
const tally = { reports: 0, sends: 0, failures: 0 };
let stopping = false;

function newReport(reporterId: string, sequence: number): Report {
  const connections: ConnectionRecord[] = [];
  const usage = tunnels.map((tunnelId) => {
    const delta = { tunnelId, bytesIn: randomInt(2 ** 32), bytesOut: randomInt(2 ** 32), connections: randomInt(8) };
    for (let i = 0; i < delta.connections; i++) connections.push(record(tunnelId));
    const sums = sent.get(tunnelId) ?? { bytesIn: 0, bytesOut: 0, connections: 0, records: 0 };
    sums.bytesIn += delta.bytesIn;
    sums.bytesOut += delta.bytesOut;
    sums.connections += delta.connections;
    sums.records += delta.connections;
    sent.set(tunnelId, sums);
    return delta;
  });
  return { reporterId, sequence, usage, connections };
}

function record(tunnelId: string): ConnectionRecord {
  const now = new Date().toISOString();
  return {
    id: randomUUID(),
    tunnelId,
    visitorAddress: '2001:db8::7',
    visitorPort: randomInt(1, 65_536),
    startedAt: now,
    endedAt: now,
    setupMs: null,
    bytesIn: randomInt(2 ** 32),
    bytesOut: randomInt(2 ** 32),
    reason: 'client_closed',
  };
}

/** Reports on and on; each report is sent unchanged, to one backend or the other, until it is acknowledged. */
async function reportOnAndOn(): Promise<void> {
  const reporterId = randomUUID();
  let sequence = Date.now() * 1000;
  while (!stopping) {
    const report = newReport(reporterId, (sequence += randomInt(1, 1000)));
    tally.reports++;
    await until(
      async () => {
        tally.sends++;
        try {
          const { body } = await server.beat({ report, url: plane.url(randomInt(2)) });
          if (body?.reported === report.sequence) return true;
        } catch (error) {
          // refused, reset, or cut off in the middle of the answer: all that fetch says
          if (!(error instanceof TypeError)) throw error;
        }
        tally.failures++;
        return false;
      },
      'a report is acknowledged',
      60_000,
    );
  }
}

it(
  `equals to the byte what was reported, though a backend is killed ${KILLS} times in the middle (G4)`,
  { timeout: 600_000 },
  async () => {
    const loops = Array.from({ length: REPORTERS }, reportOnAndOn);
    for (let i = 0; i < KILLS; i++) {
      // the other one is up, and reports come: each kill hits work under way
      const before = tally.reports;
      await until(() => tally.reports > before + REPORTERS + randomInt(10), 'reports are taken');
      await plane.killAndRestart(i % 2);
    }
    stopping = true;
    await Promise.all(loops);

    const rows = await plane.database.query(
      `SELECT t.id, u.*, c.records FROM tunnels t
       JOIN (SELECT tunnel_id, sum(bytes_in) AS i, sum(bytes_out) AS o, sum(connections) AS n FROM tunnel_usage GROUP BY 1) u ON u.tunnel_id = t.id
       JOIN (SELECT tunnel_id, count(*) AS records FROM tunnel_connections GROUP BY 1) c ON c.tunnel_id = t.id`,
    );
    const books = new Map(
      rows.map((row) => [
        String(row.id),
        { bytesIn: Number(row.i), bytesOut: Number(row.o), connections: Number(row.n), records: Number(row.records) },
      ]),
    );
    const total = [...sent.values()].reduce((bytes, sums) => bytes + sums.bytesIn + sums.bytesOut, 0);
    const records = [...sent.values()].reduce((n, sums) => n + sums.records, 0);
    process.stdout.write(
      `${KILLS} kills: ${tally.reports} reports sent ${tally.sends} times, ${tally.failures} without an answer; ${total} bytes and ${records} connections in the books\n`,
    );
    expect(books).toEqual(sent);
    // the test is worth something only when answers were lost
    expect(tally.failures).toBeGreaterThan(KILLS);
  },
);
