import { readFile } from 'node:fs/promises';

import { z } from 'zod';

import { type Check, fail, type Finding, type Group, listed, notChecked, pass, reasonOf } from './finding.js';
import { ask, askJson, below } from './http-answer.js';

const RULES_FILE = new URL('../../monitoring/alerts.yml', import.meta.url);

const Targets = z.object({
  data: z.object({
    activeTargets: z.array(
      z.object({ labels: z.record(z.string(), z.string()), health: z.string(), lastError: z.string().default('') }),
    ),
  }),
});
const Rules = z.object({
  data: z.object({
    groups: z.array(z.object({ rules: z.array(z.object({ name: z.string(), health: z.string() })) })),
  }),
});
const Alertmanagers = z.object({ data: z.object({ activeAlertmanagers: z.array(z.unknown()) }) });

/** How many of each a Prometheus should know; undefined: the database could not say. */
export interface Fleet {
  readonly backends: number | undefined;
  readonly boreServers: number | undefined;
}

interface Places {
  readonly prometheus: string | undefined;
  readonly alertmanager: string | undefined;
}

export function monitoringChecks({ prometheus, alertmanager }: Places, fleet: Fleet): Group {
  const on = (url: string | undefined, flag: string, run: (at: string) => Promise<Finding>): Check['run'] =>
    url === undefined ? () => notChecked(`no ${flag}`, `${flag} http://…`) : () => reaching(url, run);
  return {
    name: 'Monitoring',
    checks: [
      {
        id: 'scraping',
        title: 'all targets are scraped',
        run: on(prometheus, '--prometheus', (at) => scraping(at, fleet)),
      },
      { id: 'alert-rules', title: 'alerts are loaded', run: on(prometheus, '--prometheus', alertRules) },
      {
        id: 'alertmanager',
        title: 'Alertmanager hears of alerts',
        run: on(alertmanager, '--alertmanager', (at) => alertmanagerHears(at, prometheus)),
      },
    ],
  };
}

async function reaching(url: string, run: (at: string) => Promise<Finding>): Promise<Finding> {
  try {
    return await run(url);
  } catch (error) {
    if (error instanceof z.ZodError) return fail(`${url} answers otherwise than expected`, 'is it what you named?');
    return fail(`${url}: ${reasonOf(error)}`, 'start it, and let this machine reach it (docs/monitoring.md)');
  }
}

async function scraping(prometheus: string, { backends, boreServers }: Fleet): Promise<Finding> {
  const { data } = Targets.parse(await askJson(below(prometheus, '/api/v1/targets?state=active')));
  const down = data.activeTargets
    .filter(({ health }) => health !== 'up')
    .map(({ labels, lastError }) => `${labels['job']} ${labels['instance']} (${lastError || 'not scraped yet'})`);
  if (down.length > 0) return fail(`not scraped: ${listed(down)}`, 'docs/runbook.md#targetdown');
  const count = (job: string) => data.activeTargets.filter(({ labels }) => labels['job'] === job).length;
  const lacking = [
    ['bore-backend', backends],
    ['bore-server', boreServers],
  ] as const;
  const missing = lacking
    .filter(([job, running]) => count(job) < Math.max(1, running ?? 1))
    .map(([job, running]) => `${job}: ${count(job)} of ${running ?? 'at least 1'}`);
  if (missing.length === 0) return pass(`${data.activeTargets.length}`);
  return fail(
    `fewer than are running: ${listed(missing)}`,
    'add them to prometheus.yml (monitoring/prometheus.yml has the jobs)',
  );
}

async function alertRules(prometheus: string): Promise<Finding> {
  const { data } = Rules.parse(await askJson(below(prometheus, '/api/v1/rules')));
  const loaded = data.groups.flatMap(({ rules }) => rules);
  const names = new Set(loaded.map(({ name }) => name));
  const text = await readFile(RULES_FILE, 'utf8').catch(() => '');
  const shipped = [...text.matchAll(/^ *- alert: (\w+)/gm)].map(([, name = '']) => name);
  const mend =
    'copy monitoring/alerts.yml and recording-rules.yml beside prometheus.yml, and reload it (docs/monitoring.md)';
  const missing = shipped.filter((name) => !names.has(name));
  if (missing.length > 0) return fail(`not loaded: ${listed(missing)}`, mend);
  if (names.size === 0) return fail('no rules are loaded', mend);
  const failing = loaded.filter(({ health }) => health === 'err').map(({ name }) => name);
  if (failing.length > 0) return fail(`cannot be evaluated: ${listed(failing)}`, 'Prometheus says why at /rules');
  return pass(shipped.length > 0 ? `all ${shipped.length}` : `${names.size} rules; ours are not beside this program`);
}

async function alertmanagerHears(alertmanager: string, prometheus: string | undefined): Promise<Finding> {
  const { status } = await ask(below(alertmanager, '/-/ready'));
  if (status !== 200) return fail(`${alertmanager}/-/ready: ${status}`, 'look at its log');
  if (prometheus === undefined) return pass('it is ready');
  const { data } = Alertmanagers.parse(await askJson(below(prometheus, '/api/v1/alertmanagers')));
  if (data.activeAlertmanagers.length > 0) return pass('it is ready, and Prometheus has one to tell');
  return fail('Prometheus knows none', 'name it below `alerting` in prometheus.yml');
}
