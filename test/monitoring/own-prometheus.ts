import { mkdtemp, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { inject } from 'vitest';
import { z } from 'zod';

import { Api } from '../harness/api.js';
import { ownPort } from '../harness/own-ports.js';
import { RunningProcess } from '../harness/running-process.js';
import { MONITORING, shipped } from './rule-files.js';

const Config = z.looseObject({
  global: z.strictObject({ scrape_interval: z.string(), evaluation_interval: z.string() }),
  scrape_configs: z.array(
    z.looseObject({
      job_name: z.string(),
      scrape_interval: z.string().optional(),
      static_configs: z.array(z.strictObject({ targets: z.array(z.string()) })).optional(),
      http_sd_configs: z.array(z.looseObject({ url: z.url(), refresh_interval: z.string() })).optional(),
      relabel_configs: z.array(z.looseObject({ replacement: z.string().optional() })).optional(),
    }),
  ),
});

interface Place {
  readonly token: string;
  /** `host:port` of each backend, in the order of the file. */
  readonly backends: readonly string[];
  /** What other jobs ask, by their name. */
  readonly targets: Readonly<Record<string, string>>;
  /** In place of blackbox’s usual address. */
  readonly blackbox: string;
  readonly alertmanager: string;
}

const Answer = z.object({
  status: z.string(),
  error: z.string().optional(),
  data: z.object({ result: z.array(z.looseObject({ metric: z.record(z.string(), z.string()) })) }).optional(),
});

const Rules = z.object({
  data: z.object({
    groups: z.array(
      z.object({
        rules: z.array(z.looseObject({ name: z.string(), health: z.string(), lastError: z.string().optional() })),
      }),
    ),
  }),
});

/** A Prometheus on the configuration that we ship: other addresses, and a scrape a second. */
export class OwnPrometheus {
  private constructor(
    private readonly process: RunningProcess,
    private readonly api: Api,
  ) {}

  static async start(place: Place): Promise<OwnPrometheus> {
    const folder = await mkdtemp(path.join(inject('scratch'), 'prometheus-'));
    const own = `127.0.0.1:${await ownPort()}`;
    const config = Config.parse(shipped('prometheus.yml'));
    config.global = { scrape_interval: '1s', evaluation_interval: '1s' };
    const targets: Readonly<Record<string, readonly string[]>> = {
      ...Object.fromEntries(Object.entries(place.targets).map(([job, target]) => [job, [target]])),
      'bore-backend': place.backends,
      prometheus: [own],
    };
    for (const job of config.scrape_configs) {
      const of = targets[job.job_name];
      if (of) job.static_configs = [{ targets: [...of] }];
      if (job.scrape_interval) job.scrape_interval = '1s';
      for (const [i, discovery] of (job.http_sd_configs ?? []).entries()) {
        const { pathname } = new URL(discovery.url);
        discovery.url = `http://${place.backends[i]}${pathname}`;
        discovery.refresh_interval = '1s';
      }
      for (const relabel of job.relabel_configs ?? [])
        if (relabel.replacement === 'localhost:9115') relabel.replacement = place.blackbox;
    }
    const alerting = { alertmanagers: [{ static_configs: [{ targets: [place.alertmanager] }] }] };
    const rule_files = ['recording-rules.yml', 'alerts.yml'].map((name) => path.join(MONITORING, name));
    // beside it, as prometheus.yml says
    await writeFile(path.join(folder, 'bore-metrics-token'), place.token);
    const file = path.join(folder, 'prometheus.yml');
    // JSON is YAML
    await writeFile(file, JSON.stringify({ ...config, alerting, rule_files }));
    const args = [`--config.file=${file}`, `--storage.tsdb.path=${path.join(folder, 'data')}`];
    const prometheus = new RunningProcess('prometheus', [...args, `--web.listen-address=${own}`], {
      PATH: process.env['PATH'],
    });
    await prometheus.waitFor('Server is ready to receive web requests');
    return new OwnPrometheus(prometheus, new Api(`http://${own}`));
  }

  /** How many series an expression has now. @throws Error with what Prometheus has against it */
  async count(expression: string): Promise<number> {
    return (await this.series(expression)).length;
  }

  /** The labels of each series that an expression has now. */
  async series(expression: string): Promise<Record<string, string>[]> {
    const { body } = await this.api.get(`/api/v1/query?query=${encodeURIComponent(expression)}`);
    const { status, error, data } = Answer.parse(body);
    if (status !== 'success' || !data) throw new Error(`${expression}: ${error}`);
    return data.result.map(({ metric }) => metric);
  }

  /** Every rule, with how its last evaluation went. */
  async rules(): Promise<{ name: string; health: string; lastError?: string | undefined }[]> {
    const { body } = await this.api.get('/api/v1/rules');
    return Rules.parse(body).data.groups.flatMap(({ rules }) => rules);
  }

  stop(): Promise<void> {
    return this.process.stop();
  }
}
