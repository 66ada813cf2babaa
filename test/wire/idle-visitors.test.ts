/** As many idle visitors as one bore-server may have, and more than its process may have descriptors for. */
import { readFile } from 'node:fs/promises';
import type { Socket } from 'node:net';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import type { Api } from '../harness/api.js';
import { expectAtBest } from '../harness/at-best.js';
import { type OpenedTunnel, Platform } from '../harness/platform.js';
import { connect, readAll } from '../harness/sockets.js';
import { until } from '../harness/until.js';
import { VisitorCrowd } from '../harness/visitor-crowd.js';
import { CarryingClient, hello } from '../harness/wire-client.js';

const PORTS = { min: 10_000, max: 10_099 };
const SOURCES = Array.from({ length: 20 }, (_, i) => `127.0.12.${i + 1}`);
const LIMITS = {
  BORE_MAX_CONNECTIONS: '8000',
  BORE_MAX_CONNECTIONS_PER_TUNNEL: '2000',
  BORE_MAX_CONNECTIONS_PER_SOURCE: '2000',
};

let platform: Platform;
let user: Api;
const clients: CarryingClient[] = [];

/** A tunnel whose client keeps silent streams until they end, and serves a visitor that says something. */
async function carriedTunnel(): Promise<OpenedTunnel> {
  const tunnel = await platform.open(user);
  clients.push(await CarryingClient.start(platform.server, tunnel.token, tunnel.port, serve));
  return tunnel;
}

/** Streams that clients carry now. A scrape would know as well, and count the server's descriptors for it each time. */
let carried = 0;

function serve(stream: Socket): void {
  carried++;
  stream.on('close', () => carried--);
  stream.on('error', () => undefined);
  stream.on('data', (chunk: Buffer) => stream.write(chunk)).on('end', () => stream.end());
  stream.resume();
}

/** A visitor who says something, is answered, and goes; how long it took. One who is not answered within `patienceMs` goes too. */
async function served({ port }: OpenedTunnel, patienceMs = 60_000): Promise<number> {
  const began = performance.now();
  const visitor = await connect(platform.server.address, port);
  const impatience = setTimeout(() => visitor.destroy(), patienceMs);
  visitor.once('close', () => clearTimeout(impatience)).end('hello');
  expect((await readAll(visitor)).bytes.toString()).toBe('hello');
  return performance.now() - began;
}

const connections = () => platform.metric('bore_server_connections');
const descriptors = () => platform.metric('process_open_fds');
const residentKilobytes = async () => (await platform.metric('process_resident_memory_bytes')) / 1024;

function stopClients(): void {
  for (const client of clients.splice(0)) client.stop();
}

/** Of the server's process: a crowd takes about 70 MB of it. */
const HEAP = { NODE_OPTIONS: '--max-old-space-size=160' };

describe('8,000 idle visitors of one bore-server', () => {
  /** With the one that is served meanwhile, 8,000. */
  const IDLE = 7_999;
  /** Ours: both ends of each, and some. */
  const OUR_DESCRIPTORS = 2 * 8_000 + 500;
  const WAVE = 100;

  beforeEach(async ({ skip }) => {
    const limit = await descriptorLimit();
    if (limit < OUR_DESCRIPTORS) skip(`this needs ${OUR_DESCRIPTORS} descriptors (ulimit -n), there are ${limit}`);
  });

  beforeAll(async () => {
    platform = await Platform.start({ address: '127.0.12.100', ports: PORTS, serverEnv: { ...LIMITS, ...HEAP } });
    user = await platform.newUser();
  });

  afterAll(async () => {
    stopClients();
    await platform?.stop();
  });

  it('cost little, harm nobody, and leave nothing behind', { timeout: 900_000 }, async () => {
    const tunnels = await Promise.all(Array.from({ length: 10 }, carriedTunnel));
    const crowd = new VisitorCrowd('127.0.12.100', SOURCES);
    const gather = async (count: number) => {
      while (crowd.open < count) {
        const ports = Array.from({ length: Math.min(WAVE, count - crowd.open) }, (_, i) => tunnels[i % 10]?.port ?? 0);
        await crowd.come(ports);
        // one whom a busy machine keeps from being fetched for ten seconds is sent away, and another comes
        await until(() => carried === crowd.open, 'all are fetched', 30_000);
      }
    };
    // what is allocated once, is
    await gather(500);
    await crowd.leave();
    await until(async () => (await connections()) === 0, 'the first ones are gone');
    const before = { descriptors: await descriptors(), residentKilobytes: await residentKilobytes() };

    await gather(IDLE);
    await until(async () => (await connections()) === IDLE, 'all are there');
    const each = ((await residentKilobytes()) - before.residentKilobytes) / IDLE;
    const [tunnel] = tunnels;
    if (!tunnel) throw new Error('there is no tunnel');
    const servedMs: number[] = [];
    for (let i = 0; i < 20; i++) servedMs.push(await served(tunnel));
    servedMs.sort((a, b) => a - b);
    process.stdout.write(
      `${IDLE} idle visitors: ${await descriptors()} descriptors, ${each.toFixed(1)} KB of memory each; ` +
        `another is served in ${servedMs[10]?.toFixed(1)} ms (median of 20)\n`,
    );
    expect(crowd.open).toBe(IDLE);
    expect(await platform.metric('bore_server_visitors_total{outcome="not_fetched"}')).toBeLessThan(IDLE / 100);
    expect(each).toBeLessThan(40);
    expect(servedMs[10]).toBeLessThan(500);

    await crowd.leave();
    await until(async () => (await connections()) === 0, 'all are gone', 30_000);
    await until(async () => (await descriptors()) <= before.descriptors + 4, 'descriptors are given back');
    // more than one crowd needs at once, and much less than all of them: what is gone must really be gone
    for (let i = 0; i < 3; i++) {
      await gather(IDLE);
      await crowd.leave();
      await until(async () => (await connections()) === 0, 'all are gone again', 30_000);
    }
    const afterwardsMs: number[] = [];
    for (let i = 0; i < 5; i++) afterwardsMs.push(await served(tunnel));
    expect(afterwardsMs.sort((a, b) => a - b)[2]).toBeLessThan(500);
    expect(platform.server.exited()).toBe(false);
  });
});

describe('a bore-server without descriptors to spare', () => {
  const ADDRESS = '127.0.12.101';
  const DESCRIPTORS = 256;
  let tunnel: OpenedTunnel;
  let stream: Socket;
  const crowd = new VisitorCrowd(ADDRESS, SOURCES);

  beforeAll(async () => {
    platform = await Platform.start({ address: ADDRESS, ports: PORTS, descriptors: DESCRIPTORS });
    user = await platform.newUser();
    tunnel = await carriedTunnel();
    stream = await connect(ADDRESS, tunnel.port);
    expect(await echo()).toBe('still here');
  });

  afterAll(async () => {
    await crowd.leave();
    stream?.destroy();
    stopClients();
    await platform?.stop();
  });

  async function echo(): Promise<string> {
    const answer = readAnswer(stream);
    stream.write('still here');
    return answer;
  }

  /** More than there are descriptors for. */
  async function tooMany(): Promise<void> {
    for (let i = 0; i < 15; i++) await crowd.come(Array.from({ length: 20 }, () => tunnel.port));
  }

  it('refuses new visitors; streams, sessions and heartbeats go on', async () => {
    await tooMany();
    // two descriptors each
    await until(() => crowd.open < DESCRIPTORS / 2, 'those too many were sent away', 20_000);
    process.stdout.write(`with ${DESCRIPTORS} descriptors ${crowd.open} of 300 visitors are let in\n`);
    expect(crowd.open).toBeGreaterThan(DESCRIPTORS / 8);
    expect(await echo()).toBe('still here');
    const heartbeatAt = async () => {
      const [row] = await platform.database.query(`SELECT heartbeat_at FROM servers WHERE id = 's1'`);
      return String(row?.['heartbeat_at']);
    };
    const last = await heartbeatAt();
    await until(async () => (await heartbeatAt()) !== last, 'heartbeats go on');
    expect(await platform.stateOf(tunnel)).toBe('active');
  });

  it('answers its operator, and takes a new client', async () => {
    const other = await platform.open(user);
    await tooMany();
    expect((await fetch(`${platform.server.adminUrl}/health`)).status).toBe(200);
    const { client, answer } = await hello(platform.server, other.token, other.port);
    expect(answer).toEqual({ kind: 'hello', port: other.port });
    client.socket.destroy();
  });

  it('takes visitors again when some have left', async () => {
    // or those who were not sent away yet would come in their place
    await until(async () => crowd.open === (await connections()) - 1, 'those too many were sent away', 20_000);
    await crowd.leave(crowd.open / 2);
    // of the rest, those whose client could not fetch them are sent away after a while
    await until(() => served(tunnel, 2_000).catch(() => 0), 'a visitor is served', 45_000);
    await crowd.leave();
    // those that were not fetched leave after 10 s
    await until(async () => (await connections()) === 1, 'all but one are gone', 20_000);
    await expectAtBest(1_000, () => served(tunnel));
    expect(await echo()).toBe('still here');
  });
});

async function readAnswer(stream: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    stream.once('data', (chunk: Buffer) => resolve(chunk.toString())).once('close', () => reject(new Error('cut')));
  });
}

/** What this process may open; Node has raised the soft limit to the hard one. */
async function descriptorLimit(): Promise<number> {
  // without /proc: not Linux, and not known
  const limits = await readFile('/proc/self/limits', 'utf8').catch(() => '');
  return Number(/Max open files +(\d+)/.exec(limits)?.[1] ?? 0);
}
