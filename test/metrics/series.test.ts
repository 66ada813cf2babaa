/** No caller can make series: they are as many after 10,000 different paths as after one. */
import { randomUUID } from 'node:crypto';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { type Sample, scrape, type Scrape } from '../harness/metrics.js';
import { Platform } from '../harness/platform.js';
import { hello } from '../harness/wire-client.js';

const PATHS = 10_000;
/** Requests under way: more than the process works on at once, and few enough for every machine. */
const AT_ONCE = 50;
const SERIES_MAX = 2_000;
const METHODS = ['GET', 'GET', 'GET', 'POST', 'PATCH', 'DELETE', 'PUT', 'PROPFIND'];

let platform: Platform;

beforeAll(async () => {
  platform = await Platform.start({ address: '127.0.2.63', ports: { min: 10_000, max: 10_019 } });
});

afterAll(() => platform?.stop());

function labelsOf(samples: readonly Sample[]): string[] {
  return samples.flatMap(({ labels }) => Object.values(labels));
}

it(`shows fewer than ${SERIES_MAX} series after ${PATHS} paths and tunnel ids`, { timeout: 180_000 }, async () => {
  const user = await platform.newUser();
  const tunnel = await platform.open(user, { name: 'one' });
  const before = (await scrape(platform.backend.url)).samples.length;
  const paths = (i: number): string =>
    [
      `/api/v1/tunnels/${randomUUID()}`,
      `/api/v1/tunnels/${randomUUID()}/usage`,
      `/api/v1/tunnels/${tunnel.id}?n=${i}`,
      `/nowhere/${randomUUID()}`,
      `/api/v1/${i}`,
    ][i % 5] ?? '/';
  const statuses = new Map<number, number>();
  let next = 0;
  const ask = async (): Promise<void> => {
    for (let i = next++; i < PATHS; i = next++) {
      const method = METHODS[Math.floor(i / 5) % METHODS.length] ?? 'GET';
      const { status } = await user.send(method, paths(i));
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, ask));

  // they were answered, and not turned away: a limit or an outage would show one series for all of them
  expect([...statuses.keys()].filter((status) => status === 429 || status >= 500)).toEqual([]);
  expect([...statuses.values()].reduce((sum, count) => sum + count)).toBe(PATHS);
  expect(statuses.get(404)).toBeGreaterThan(PATHS / 2);
  expect(statuses.get(200)).toBeGreaterThan(100);

  const { samples } = await scrape(platform.backend.url);
  expect(samples.length).toBeLessThan(SERIES_MAX);
  // of few routes: each with its methods, statuses and buckets
  expect(samples.length - before).toBeLessThan(500);
  const answered = samples.filter(({ name }) => name === 'http_requests_total');
  expect(answered.reduce((sum, { value }) => sum + value, 0)).toBeGreaterThanOrEqual(PATHS);
  for (const label of [...labelsOf(samples), ...labelsOf((await scrape(platform.server.adminUrl)).samples)]) {
    expect(label).not.toMatch(/[0-9a-f]{8}-[0-9a-f]{4}-/);
    expect(label).not.toMatch(/\d+\.\d+\.\d+\.\d+/);
    expect(label).not.toContain('nowhere');
  }
});

it('shows a bore-server’s clients as few series as none', async () => {
  const { server } = platform;
  // kinds of garbage collection and of resources are there when Node has had the first of them, whoever is the occasion; they are few
  const series = ({ samples }: Scrape) => samples.filter(({ name }) => !name.startsWith('nodejs_')).length;
  const before = series(await scrape(server.adminUrl));
  for (let i = 0; i < 200; i++) {
    const { answer, client } = await hello(server, `wrong-${randomUUID()}`, 10_000 + (i % 20));
    expect(answer.kind).toBe('error');
    await client.closed();
  }
  const after = await scrape(server.adminUrl);
  expect(after.sum('bore_server_handshakes_total', { outcome: 'refused' })).toBe(200);
  expect(series(after)).toBe(before);
});
