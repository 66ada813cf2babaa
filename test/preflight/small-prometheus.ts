import { mkdtemp, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { inject } from 'vitest';

import { Api } from '../harness/api.js';
import { ownPort } from '../harness/own-ports.js';
import { RunningProcess } from '../harness/running-process.js';
import { until } from '../harness/until.js';
import { MONITORING } from '../monitoring/rule-files.js';

/** The first scrape, on a machine that is busy. */
const SCRAPED_MS = 30_000;

export interface Watching {
  /** `host:port` by job. */
  readonly targets: Readonly<Record<string, readonly string[]>>;
  readonly token: string;
  readonly alertmanager?: string;
  readonly rules?: boolean;
}

/** A Prometheus that looks at backends and bore-servers, and has tried each of them once. */
export async function startSmallPrometheus(watching: Watching): Promise<{ url: string; stop: () => Promise<void> }> {
  const { targets, token, alertmanager, rules = true } = watching;
  const folder = await mkdtemp(path.join(inject('scratch'), 'prometheus-'));
  const address = `127.0.0.1:${await ownPort()}`;
  const file = path.join(folder, 'prometheus.yml');
  await writeFile(path.join(folder, 'token'), token);
  const config = {
    // a scrape may take as long as the interval: a busy machine is no target that is away
    global: { scrape_interval: '5s', scrape_timeout: '5s', evaluation_interval: '1s' },
    scrape_configs: Object.entries(targets).map(([job_name, of]) => ({
      job_name,
      static_configs: [{ targets: of }],
      authorization: { credentials_file: path.join(folder, 'token') },
    })),
    ...(alertmanager !== undefined && {
      alerting: { alertmanagers: [{ static_configs: [{ targets: [alertmanager] }] }] },
    }),
    ...(rules && { rule_files: ['recording-rules.yml', 'alerts.yml'].map((name) => path.join(MONITORING, name)) }),
  };
  // JSON is YAML
  await writeFile(file, JSON.stringify(config));
  const args = [`--config.file=${file}`, `--storage.tsdb.path=${path.join(folder, 'data')}`];
  const prometheus = new RunningProcess('prometheus', [...args, `--web.listen-address=${address}`], {
    PATH: process.env['PATH'],
  });
  await prometheus.waitFor('Server is ready to receive web requests');
  const api = new Api(`http://${address}`);
  const tried = async () => {
    const { text } = await api.get('/api/v1/targets?state=active');
    return text.includes('"health"') && !text.includes('"health":"unknown"');
  };
  await until(tried, 'every target is scraped once', SCRAPED_MS);
  return { url: `http://${address}`, stop: () => prometheus.stop() };
}
