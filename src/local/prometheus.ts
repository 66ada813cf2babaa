import { spawnSync } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
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

/** Writes monitoring/prometheus.yml with other targets, and returns the command that runs Prometheus on it. */
export async function prometheusCommand(place: PrometheusPlace): Promise<[string, ...string[]]> {
  const { folder, address, port } = place;
  const shipped = path.join(PROJECT_DIR, 'monitoring');
  await mkdir(folder, { recursive: true });
  const list = (targets: readonly string[]): string => targets.map((target) => `'${target}'`).join(', ');
  const text = (await readFile(path.join(shipped, 'prometheus.yml'), 'utf8'))
    .replace("'127.0.0.1:3000'", list(place.backends))
    .replace("'127.0.0.1:7836'", list(place.servers))
    .replace('- alerts.yml', `- ${path.join(shipped, 'alerts.yml')}`);
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
