/**
 * Streams from end to end, as a table: at our server with each client, and at upstream's for comparison. What is said
 * of upstream is asserted like the rest.
 */
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';

import { type BoreServerProcess, startBoreServer } from '../harness/bore-server.js';
import { FaultProxy } from '../harness/fault-proxy.js';
import { RunningProcess } from '../harness/running-process.js';
import { type ClientKind, SECRET, StreamPath } from './conformance/paths.js';
import { play, type Result } from './conformance/play.js';
import { nameOf, type Row, ROWS, type Verdict } from './conformance/rows.js';

const PORTS = { min: 10_000, max: 10_099 };
/** Upstream's client knows this port only. */
const CONTROL_PORT = 7835;
/** A client's words take so long to reach the server: visitors can do a lot before they are fetched. */
const LATE_MS = 300;

const bore = inject('upstreamBore');
const binary = 'path' in bore ? bore.path : '';

interface Setup {
  readonly name: string;
  readonly server: 'ours' | 'upstream';
  readonly client: ClientKind;
}

const SETUPS: readonly Setup[] = [
  { name: 'our server, bare client', server: 'ours', client: 'bare' },
  { name: 'our server, borectl', server: 'ours', client: 'borectl' },
  { name: 'our server, stock client', server: 'ours', client: 'stock' },
  { name: 'upstream’s server, bare client', server: 'upstream', client: 'bare' },
  { name: 'upstream’s server, stock client', server: 'upstream', client: 'stock' },
];

const ADDRESSES = {
  ours: { direct: '127.0.11.1', late: '127.0.11.2' },
  upstream: { direct: '127.0.11.3', late: '127.0.11.4' },
};

const results = new Map<Row, Map<string, Result>>(ROWS.map((row) => [row, new Map()]));
const proxies: FaultProxy[] = [];
let ours: BoreServerProcess;
let upstream: RunningProcess | undefined;

beforeAll(async () => {
  ours = await startBoreServer({
    secret: SECRET,
    ports: PORTS,
    address: ADDRESSES.ours.direct,
    controlPort: CONTROL_PORT,
  });
  if (binary !== '') {
    const { min, max } = PORTS;
    const args = ['server', '--bind-addr', ADDRESSES.upstream.direct, '--min-port', `${min}`, '--max-port', `${max}`];
    upstream = new RunningProcess(binary, args, { PATH: process.env['PATH'], BORE_SECRET: SECRET });
    await upstream.waitFor('server listening');
  }
  for (const { direct, late } of Object.values(ADDRESSES)) {
    const at = { host: late, port: CONTROL_PORT };
    const proxy = await FaultProxy.start({ host: direct, port: CONTROL_PORT }, at);
    proxy.set({ latencyMs: LATE_MS }, 'toTarget');
    proxies.push(proxy);
  }
});

afterAll(async () => {
  for (const proxy of proxies) await proxy.close();
  await upstream?.kill9();
  await ours?.stop();
  process.stdout.write(`${table()}\n`);
});

describe.each(SETUPS)('a stream: $name', (setup) => {
  const paths = new Map<Row['when'], StreamPath>();

  beforeAll(async () => {
    if ((setup.client === 'stock' || setup.server === 'upstream') && binary === '') return;
    const { direct, late } = ADDRESSES[setup.server];
    const base = PORTS.min + 2 * SETUPS.indexOf(setup);
    const start = (address: string, port: number) =>
      StreamPath.start(setup.client, { address, controlPort: CONTROL_PORT }, direct, port, binary);
    paths.set('carried', await start(direct, base));
    paths.set('before Accept', await start(late, base + 1));
  });

  afterAll(async () => {
    for (const path of paths.values()) await path.stop();
  });

  for (const row of ROWS) {
    it(nameOf(row), async ({ skip }) => {
      const path = paths.get(row.when) ?? skip('missing' in bore ? bore.missing : 'the path could not be set up');
      const expected = expectedOf(row, setup);
      const result = await play(row, path, expected);
      results.get(row)?.set(setup.name, result);
      expect(expected).toContain(result.verdict);
    });
  }
});

function expectedOf(row: Row, { server, client }: Setup): readonly Verdict[] {
  if (server === 'upstream') return row.upstreamServer ?? row.expected;
  return (client === 'stock' ? row.stockClient : undefined) ?? row.expected;
}

/** How upstream's server compares with ours, seen with the bare client: nothing but the server between the two ends. */
function comparison({ expected, upstreamServer }: Row): string {
  if (!upstreamServer) return 'the same';
  return expected.includes('reset') ? 'worse: a broken stream looks finished' : 'different';
}

function table(): string {
  const lines = [['stream', ...SETUPS.map(({ name }) => name), 'upstream’s is']];
  for (const [row, bySetup] of results) {
    const cells = SETUPS.map(({ name }) => {
      const result = bySetup.get(name);
      return result ? `${result.verdict} ${result.ms.toFixed(0)} ms` : '–';
    });
    lines.push([nameOf(row), ...cells, comparison(row)]);
  }
  const widths = lines[0]?.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0))) ?? [];
  return lines.map((line) => line.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(' | ')).join('\n');
}
