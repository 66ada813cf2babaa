/** docs/metrics.md and what both programs show are the same. */
import { readFileSync } from 'node:fs';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { scrape } from '../harness/metrics.js';
import { startBoreServer } from '../harness/bore-server.js';
import { Fleet } from '../harness/fleet.js';

const TEXT = readFileSync(new URL('../../docs/metrics.md', import.meta.url), 'utf8');
/** Of prom-client, which the page speaks of as a whole. */
const OF_NODE = /^(process|nodejs)_/;

interface Documented {
  readonly type: string;
  readonly labels: string;
}

/** Metrics of one table: name → type and labels. */
function documented(section: string): Map<string, Documented> {
  const [, text = ''] = new RegExp(`\n## ${section}\n(.*?)\n## `, 's').exec(TEXT) ?? [];
  const rows = text.matchAll(/^\| `(\w+)` +\| (\w+) +\| (.*?) +\|/gm);
  return new Map(
    [...rows].map(([, name = '', type = '', labels = '']) => [
      name,
      {
        type,
        labels: [...labels.matchAll(/`(\w+)`/g)]
          .map(([, label = '']) => label)
          .sort()
          .join(),
      },
    ]),
  );
}

async function shown(url: string): Promise<Map<string, Documented>> {
  const { types, samples } = await scrape(url);
  const own = [...types].filter(([name]) => !OF_NODE.test(name));
  return new Map(
    own.map(([name, type]) => {
      const labels = samples
        .filter((sample) => sample.name.replace(/_(bucket|sum|count)$/, '') === name || sample.name === name)
        .flatMap((sample) => Object.keys(sample.labels))
        .filter((label) => label !== 'le');
      return [name, { type, labels: [...new Set(labels)].sort().join() }];
    }),
  );
}

let fleet: Fleet;

beforeAll(async () => {
  fleet = await Fleet.start({ name: 'metrics.test', addresses: ['127.0.2.60', '127.0.2.61'] });
});

afterAll(() => fleet?.stop());

function compare(page: Map<string, Documented>, program: Map<string, Documented>): void {
  expect(page.size).toBeGreaterThan(20);
  expect([...program.keys()].sort()).toEqual([...page.keys()].sort());
  for (const [name, { type, labels }] of program) {
    expect({ name, type }).toEqual({ name, type: page.get(name)?.type });
    // one that has nothing to show has no labels either
    if (labels !== '') expect({ name, labels }).toEqual({ name, labels: page.get(name)?.labels });
  }
}

it('names every metric of a backend, its type and labels, and no other', async () => {
  compare(documented('Backend'), await shown(fleet.platform.backend.url));
});

it('names every metric of a bore-server, its type and labels, and no other', async () => {
  compare(documented('bore-server'), await shown(fleet.server(1).adminUrl));
});

it('says what a stand-alone bore-server does not have', async () => {
  const server = await startBoreServer({ secret: 'alone', ports: { min: 10_000, max: 10_009 }, address: '127.0.2.62' });
  const here = new Set((await shown(server.adminUrl)).keys());
  const absent = [...documented('bore-server').keys()].filter((name) => !here.has(name));
  const said = [...TEXT.matchAll(/^\| `(bore_server_\w+)`.*absent (?:stand-alone|without a peer port) +\|$/gm)];
  expect(absent.sort()).toEqual(said.map(([, name = '']) => name).sort());
  expect((await scrape(server.adminUrl)).value('bore_server_sessions_max')).toBe(10);
  await server.stop();
});

it('both show what prom-client knows of their process', async () => {
  for (const url of [fleet.platform.backend.url, fleet.server(1).adminUrl]) {
    const { types } = await scrape(url);
    for (const name of [
      'process_open_fds',
      'process_max_fds',
      'process_cpu_seconds_total',
      'nodejs_eventloop_lag_p99_seconds',
    ])
      expect(types.has(name), name).toBe(true);
  }
});
