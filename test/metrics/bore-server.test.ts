/** Each metric of a bore-server changes when what it measures happens, by as much as it happened. */
import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { INTERNAL_KEY_HEADER } from '../../src/protocol/plane-api.js';
import { Api } from '../harness/api.js';
import { SECRETS } from '../harness/backend.js';
import { type Scrape, scrape } from '../harness/metrics.js';
import { Platform } from '../harness/platform.js';
import { connect, readAll } from '../harness/sockets.js';
import { until } from '../harness/until.js';
import { CarryingClient, hello, WireClient } from '../harness/wire-client.js';

const ADDRESS = '127.0.2.64';

let platform: Platform;

beforeAll(async () => {
  platform = await Platform.start({
    address: ADDRESS,
    ports: { min: 10_000, max: 10_019 },
    serverEnv: { BORE_MAX_TUNNELS: '7' },
  });
});

afterAll(() => platform?.stop());

const now = (): Promise<Scrape> => scrape(platform.server.adminUrl);
const echo = (stream: Socket) => void stream.on('error', () => undefined).pipe(stream);

it('counts sessions, visitors and every byte', async () => {
  const tunnel = await platform.open(await platform.newUser());
  const before = await now();
  expect(before.value('bore_server_sessions_max')).toBe(7);
  expect(before.value('bore_server_sessions')).toBe(0);
  const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, echo);
  expect((await now()).value('bore_server_sessions')).toBe(1);
  expect((await now()).value('bore_server_handshakes_total', { outcome: 'hello' })).toBe(1);
  // of one that got a session, and of nobody else
  await (await hello(platform.server, 'wrong', tunnel.port)).client.closed();
  const handshakes = await now();
  expect(handshakes.value('bore_server_handshake_seconds_count')).toBe(1);
  expect(handshakes.value('bore_server_handshake_seconds_sum')).toBeGreaterThan(0);
  expect(handshakes.value('bore_server_handshakes_total', { outcome: 'refused' })).toBe(1);

  const sizes = [0, 1, 70_000, 1_234_567];
  for (const size of sizes) {
    const visitor = await connect(ADDRESS, tunnel.port);
    visitor.end(randomBytes(size));
    expect((await readAll(visitor)).bytes.length).toBe(size);
  }
  const sent = sizes.reduce((sum, size) => sum + size);
  const after = await now();
  expect(after.value('bore_server_bytes_total', { direction: 'in' })).toBe(sent);
  expect(after.value('bore_server_bytes_total', { direction: 'out' })).toBe(sent);
  expect(after.value('bore_server_visitors_total', { outcome: 'carried' })).toBe(sizes.length);
  expect(after.value('bore_server_handshakes_total', { outcome: 'accept' })).toBe(sizes.length);
  expect(after.value('bore_server_setup_seconds_count')).toBe(sizes.length);

  const visitor = await connect(ADDRESS, tunnel.port);
  await until(async () => (await now()).value('bore_server_connections') === 1, 'it is there');
  await until(async () => (await now()).value('bore_server_visitors_pending') === 0, 'it is fetched');
  visitor.destroy();
  await until(async () => (await now()).value('bore_server_connections') === 0, 'it has left');
  client.stop();
  await until(async () => (await now()).value('bore_server_sessions') === 0, 'the session has ended');
});

it('shows who waits: visitors for their client, and clients in their handshake', async () => {
  const tunnel = await platform.open(await platform.newUser());
  const { client } = await hello(platform.server, tunnel.token, tunnel.port);
  const visitor = await connect(ADDRESS, tunnel.port);
  await until(async () => (await now()).value('bore_server_visitors_pending') === 1, 'it waits');
  expect((await now()).value('bore_server_connections')).toBe(1);
  visitor.destroy();
  client.socket.destroy();
  await until(async () => (await now()).value('bore_server_visitors_pending') === 0, 'it waits no more');

  const silent = await WireClient.connect(platform.server);
  await until(async () => (await now()).value('bore_server_handshakes_open') === 1, 'somebody says nothing');
  silent.socket.destroy();
  await until(async () => (await now()).value('bore_server_handshakes_open') === 0, 'and has left');
});

it('shows what is not reported while the control plane hangs, and that it hangs', async () => {
  const tunnel = await platform.open(await platform.newUser());
  const client = await CarryingClient.start(platform.server, tunnel.token, tunnel.port, echo);
  await until(async () => (await now()).value('bore_server_reports_pending') === 0, 'all is reported');
  const well = await now();
  expect(well.value('bore_server_control_plane_up')).toBe(1);
  expect(well.value('bore_server_report_age_seconds')).toBe(0);

  platform.backend.signal('SIGSTOP');
  const visitor = await connect(ADDRESS, tunnel.port);
  visitor.end('hello');
  await readAll(visitor);
  await until(async () => (await now()).value('bore_server_control_plane_up') === 0, 'it is seen', 20_000);
  // usage of one tunnel, and the record of one connection
  const ill = await until(async () => {
    const at = await now();
    return (at.value('bore_server_reports_pending') ?? 0) >= 2 ? at : undefined;
  }, 'the record waits');
  expect(ill.value('bore_server_report_age_seconds')).toBeGreaterThan(0.5);
  // a heartbeat has 4 s to be answered
  expect(ill.value('bore_server_heartbeat_age_seconds')).toBeGreaterThan(3);
  // a client that nobody can be asked about is refused, and not for a mistake of its own
  const stranger = await hello(platform.server, 'of a tunnel that is not known here', tunnel.port);
  expect(stranger.answer.kind).toBe('error');
  const asked = await now();
  const grown = (outcome: string) =>
    (asked.value('bore_server_handshakes_total', { outcome }) ?? NaN) -
    (ill.value('bore_server_handshakes_total', { outcome }) ?? NaN);
  expect([grown('failed'), grown('refused')]).toEqual([1, 0]);
  platform.backend.signal('SIGCONT');
  await until(async () => (await now()).value('bore_server_control_plane_up') === 1, 'it is back', 20_000);
  await until(async () => (await now()).value('bore_server_reports_pending') === 0, 'all is reported', 20_000);
  const again = await now();
  expect(again.value('bore_server_report_age_seconds')).toBe(0);
  expect(again.value('bore_server_heartbeat_age_seconds')).toBeLessThan(3);
  client.stop();
});

it('shows that it drains', async () => {
  const orders = new Api(platform.server.adminUrl, { [INTERNAL_KEY_HEADER]: SECRETS.INTERNAL_API_KEY });
  expect((await now()).value('bore_server_draining')).toBe(0);
  await orders.post('/drain', undefined);
  expect((await now()).value('bore_server_draining')).toBe(1);
  await orders.post('/undrain', undefined);
  expect((await now()).value('bore_server_draining')).toBe(0);
});
