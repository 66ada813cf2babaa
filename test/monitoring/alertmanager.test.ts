import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';

import { Api } from '../harness/api.js';
import { until } from '../harness/until.js';
import { ALERTMANAGER, AMTOOL, type OwnAlertmanager, startAlertmanager } from './own-alertmanager.js';
import { programsMissing } from './programs.js';
import { ALERTS, MONITORING, shipped } from './rule-files.js';
import { SlackReceiver } from './slack-receiver.js';

const run = promisify(execFile);
const reason = programsMissing({ ...ALERTMANAGER, ...AMTOOL });
const FILE = path.join(MONITORING, 'alertmanager.yml');
/** Alertmanager's own pace, on a busy machine. */
const TOLD_MS = 25_000;

const ruleOf = (name: string) => {
  const rule = ALERTS.find(({ alert }) => alert === name);
  if (!rule) throw new Error(`there is no alert ${name}`);
  return rule;
};

/** Alerts that have what matchers ask of their name and of their own labels. */
function matched(matchers: readonly string[]) {
  return ALERTS.filter(({ alert, labels }) =>
    matchers.every((matcher) => {
      const [, label = '', pattern = ''] = /^(\w+) =~? "?([^"]+)"?$/.exec(matcher) ?? [];
      const value = label === 'alertname' ? alert : labels[label];
      // others are of the series: any may have them
      return label === 'job' || new RegExp(`^(${pattern})$`).test(value ?? '');
    }),
  );
}

describe('monitoring/alertmanager.yml', () => {
  let slack: SlackReceiver;
  let alertmanager: OwnAlertmanager;

  beforeEach(({ skip }) => {
    if (reason !== undefined) skip(reason);
  });

  beforeAll(async () => {
    if (reason !== undefined) return;
    slack = await SlackReceiver.start();
    alertmanager = await startAlertmanager(slack.url);
  });

  afterAll(async () => {
    await alertmanager?.process.stop();
    slack?.close();
  });

  /** As Prometheus sends it. */
  async function send(name: string, labels: Record<string, string>, { resolved = false } = {}): Promise<void> {
    const { labels: own, annotations } = ruleOf(name);
    const now = Date.now();
    const alert = {
      labels: { alertname: name, ...own, ...labels },
      annotations,
      startsAt: new Date(now - 60_000).toISOString(),
      endsAt: new Date(resolved ? now - 1_000 : now + 600_000).toISOString(),
    };
    const { status, text } = await new Api(`http://${alertmanager.address}`).post('/api/v2/alerts', [alert]);
    expect(status, text).toBe(200);
  }

  const attachments = () => slack.messages.map(({ attachments: [first] }) => first);
  const titles = () => attachments().map(({ title }) => title);

  it('is one that Alertmanager takes', async () => {
    const { stdout } = await run('amtool', ['check-config', FILE]);
    expect(stdout).toContain('SUCCESS');
  });

  it('sends each alert where its severity says', async () => {
    const { stdout } = await run('amtool', ['config', 'routes', 'show', `--config.file=${FILE}`]);
    expect(stdout).toContain('slack-critical');
    // many have the same labels
    const routes = new Map<string, string>();
    for (const { labels } of ALERTS) {
      const args = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
      const key = args.join();
      if (!routes.has(key)) {
        const test = await run('amtool', ['config', 'routes', 'test', `--config.file=${FILE}`, ...args]);
        routes.set(key, test.stdout.trim());
      }
      expect(routes.get(key)).toBe(labels['severity'] === 'critical' ? 'slack-critical' : 'slack-warnings');
    }
  });

  it('holds back only alerts that there are, for alerts that there are', () => {
    const names = JSON.stringify(shipped('alertmanager.yml')).match(/alertname =~? [^,\]]+/g) ?? [];
    const patterns = names.flatMap((matcher) => matcher.replace(/.*~? \\?"?/, '').match(/[A-Z][\w.*]+/g) ?? []);
    expect(patterns.length).toBeGreaterThan(10);
    for (const pattern of patterns)
      expect(
        ALERTS.filter(({ alert }) => new RegExp(`^${pattern}$`).test(alert)),
        pattern,
      ).not.toEqual([]);
  });

  it('holds back nothing that wakes somebody for what does not', () => {
    const Rules = z.object({
      inhibit_rules: z.array(z.object({ source_matchers: z.array(z.string()), target_matchers: z.array(z.string()) })),
    });
    const rules = Rules.parse(shipped('alertmanager.yml')).inhibit_rules;
    expect(rules.length).toBeGreaterThan(5);
    for (const { source_matchers, target_matchers } of rules) {
      const severities = (matchers: string[]) => new Set(matched(matchers).map(({ labels }) => labels['severity']));
      expect(severities(source_matchers).size, source_matchers.join()).toBeGreaterThan(0);
      if (severities(source_matchers).has('warning'))
        expect([...severities(target_matchers)], source_matchers.join()).toEqual(['warning']);
    }
  });

  it('tells Slack what is wrong, where to read on, and when it is over', async () => {
    await send('QueueStuck', { job: 'bore-backend', queue: 'housekeeping' });
    await until(() => titles().includes('CRITICAL: QueueStuck'), 'Slack hears of it', TOLD_MS);
    expect(attachments().find(({ title }) => title === 'CRITICAL: QueueStuck')).toMatchObject({
      color: 'danger',
      title_link: 'docs/runbook.md#queuestuck',
      text: expect.stringContaining(ruleOf('QueueStuck').annotations.description),
    });
    await send('QueueStuck', { job: 'bore-backend', queue: 'housekeeping' }, { resolved: true });
    await until(() => titles().includes('RESOLVED: QueueStuck'), 'Slack hears that it is over', TOLD_MS);
    expect(attachments().find(({ title }) => title === 'RESOLVED: QueueStuck')?.color).toBe('good');
    expect(new Set(slack.messages.map(({ channel }) => channel))).toEqual(new Set(['#bore-alerts']));
  });

  it('says nothing of what follows from something that it has said', async () => {
    await send('AllBackendsDown', { job: 'bore-backend' });
    await until(() => titles().includes('CRITICAL: AllBackendsDown'), 'Slack hears of the cause', TOLD_MS);
    await send('TargetDown', { job: 'bore-backend', instance: 'b1' });
    await send('CertificateExpiresSoon', { job: 'certificates', instance: 'https://api' });
    await until(() => titles().includes('WARNING: CertificateExpiresSoon'), 'Slack hears of another', TOLD_MS);
    const { body } = await new Api(`http://${alertmanager.address}`).get('/api/v2/alerts?filter=alertname=TargetDown');
    expect(body).toMatchObject([{ status: { state: 'suppressed' } }]);
    expect(titles()).not.toContain('WARNING: TargetDown');
  });

  it('holds nothing back for one backend, or one exporter, that has lost PostgreSQL alone', async () => {
    const api = new Api(`http://${alertmanager.address}`);
    const stateOf = async (name: string) =>
      (await api.get(`/api/v2/alerts?filter=alertname=${name}`)).body[0]?.status.state;
    await send('BackendWithoutDatabase', { job: 'bore-backend', instance: 'b1' });
    await send('PostgresDown', { job: 'postgresql', instance: 'p1' });
    for (const name of ['BackendWithoutDatabase', 'PostgresDown'])
      await until(() => titles().includes(`CRITICAL: ${name}`), `Slack hears of ${name}`, TOLD_MS);
    await send('BoreServerLost', { job: 'bore-backend' });
    await until(() => titles().includes('CRITICAL: BoreServerLost'), 'Slack hears of another', TOLD_MS);
    // and all of it for a database that all have lost
    await send('DatabaseAway', { job: 'bore-backend' });
    for (const name of ['BackendWithoutDatabase', 'BoreServerLost'])
      await until(async () => (await stateOf(name)) === 'suppressed', `${name} is held back`, TOLD_MS);
    for (const [name, labels] of Object.entries({
      DatabaseAway: { job: 'bore-backend' },
      BackendWithoutDatabase: { job: 'bore-backend', instance: 'b1' },
      PostgresDown: { job: 'postgresql', instance: 'p1' },
      BoreServerLost: { job: 'bore-backend' },
    }))
      await send(name, labels, { resolved: true });
  });

  it('tells of one objective once, by its fastest alert', async () => {
    for (const burn of ['Fast', 'Slow', 'Steady']) await send(`ErrorBudgetBurn${burn}`, { job: 'bore-backend' });
    const api = new Api(`http://${alertmanager.address}`);
    const states = async (name: string) =>
      (await api.get(`/api/v2/alerts?filter=alertname=${name}`)).body[0].status.state;
    await until(async () => (await states('ErrorBudgetBurnFast')) === 'active', 'the fast one is told', TOLD_MS);
    for (const name of ['ErrorBudgetBurnSlow', 'ErrorBudgetBurnSteady'])
      await until(async () => (await states(name)) === 'suppressed', `${name} is not`, TOLD_MS);
  });
});
