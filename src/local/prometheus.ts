import { spawnSync } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { PROJECT_DIR } from './state-folders.js';

/** Answers in milliseconds; Go programs may take a moment more. */
const ASK_TIMEOUT_MS = 10_000;

/** Whether a cluster can be watched here. */
export function isPrometheusInstalled(): boolean {
  return spawnSync('prometheus', ['--version'], { timeout: ASK_TIMEOUT_MS }).status === 0;
}

interface PrometheusPlace {
  /** Made when it is missing. */
  readonly folder: string;
  readonly address: string;
  readonly port: number;
  /** `host:port` of each. */
  readonly backends: readonly string[];
  readonly servers: readonly string[];
}

/**
 * Writes a configuration of the rules in monitoring/ and of these targets, and returns the command that runs Prometheus on it.
 * The exporters and the Alertmanager of monitoring/prometheus.yml are not there.
 */
export async function prometheusCommand(place: PrometheusPlace): Promise<[string, ...string[]]> {
  const { folder, address, port } = place;
  const shipped = path.join(PROJECT_DIR, 'monitoring');
  await mkdir(folder, { recursive: true });
  const job = (job_name: string, targets: readonly string[]): object => ({ job_name, static_configs: [{ targets }] });
  // JSON is YAML
  const text = JSON.stringify({
    global: { scrape_interval: '15s', evaluation_interval: '15s' },
    rule_files: ['recording-rules.yml', 'alerts.yml'].map((name) => path.join(shipped, name)),
    scrape_configs: [job('bore-backend', place.backends), job('bore-server', place.servers)],
  });
  const file = path.join(folder, 'prometheus.yml');
  await writeFile(file, text);
  return [
    'prometheus',
    `--config.file=${file}`,
    `--storage.tsdb.path=${path.join(folder, 'data')}`,
    // enough to look back on, too little to fill a disk
    '--storage.tsdb.retention.size=512MB',
    `--web.listen-address=${address}:${port}`,
  ];
}
