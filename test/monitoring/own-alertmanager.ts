import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { inject } from 'vitest';

import { ownPort } from '../harness/own-ports.js';
import { RunningProcess } from '../harness/running-process.js';
import { MONITORING } from './rule-files.js';

/** Debian's name of the program. */
export const ALERTMANAGER = { 'prometheus-alertmanager': 'prometheus-alertmanager' };
export const AMTOOL = { amtool: 'prometheus-alertmanager' };

/** An Alertmanager with the file that we ship. */
export interface OwnAlertmanager {
  /** `host:port` */
  readonly address: string;
  readonly process: RunningProcess;
}

/** Starts it; its messages go to `slack`. Waits are a second, and not half a minute. */
export async function startAlertmanager(slack: string): Promise<OwnAlertmanager> {
  const folder = await mkdtemp(path.join(inject('scratch'), 'alertmanager-'));
  const webhook = path.join(folder, 'slack-webhook-url');
  await writeFile(webhook, slack);
  const shipped = await readFile(path.join(MONITORING, 'alertmanager.yml'), 'utf8');
  const text = shipped
    .replaceAll('/etc/prometheus/slack-webhook-url', webhook)
    .replaceAll(/group_wait: \d+s/g, 'group_wait: 1s')
    .replaceAll('group_interval: 5m', 'group_interval: 1s');
  const file = path.join(folder, 'alertmanager.yml');
  await writeFile(file, text);
  const address = `127.0.0.1:${await ownPort()}`;
  const process_ = new RunningProcess(
    'prometheus-alertmanager',
    [
      `--config.file=${file}`,
      `--storage.path=${path.join(folder, 'data')}`,
      `--web.listen-address=${address}`,
      // one alone
      '--cluster.listen-address=',
    ],
    { PATH: process.env['PATH'] },
  );
  await process_.waitFor(/Listening on|msg=Listening/);
  return { address, process: process_ };
}
