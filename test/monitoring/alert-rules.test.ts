import { copyFile, mkdtemp, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { describe, expect, inject, it } from 'vitest';
import { z } from 'zod';

import { ALERT_CASES, type AlertCase, type Series } from './alert-cases.js';
import { BURN_CASES } from './burn-cases.js';
import { promtoolMissing, runPromtool } from './programs.js';
import { type Alert, ALERTS, MONITORING, RECORDINGS, shipped } from './rule-files.js';

/** Some 10 s of computing, on a busy machine. */
const PROMTOOL_MS = 240_000;

const CASES = [...ALERT_CASES, ...BURN_CASES];
/** Cases of so many minutes are computed in such steps: those of days in coarse ones, and still a promtool's work of seconds. */
const STEPS = [
  { step: '1m', from: 0, to: 200 },
  { step: '5m', from: 200, to: 1000 },
  { step: '15m', from: 1000, to: Infinity },
];

const ruleOf = (name: string) => {
  const rule = ALERTS.find(({ alert }) => alert === name);
  if (!rule) throw new Error(`there is no alert ${name}`);
  return rule;
};

const inputs = (series: Series) => Object.entries(series).map(([name, values]) => ({ series: name, values }));

const at = (minute: number, alert: string, expected: readonly object[] = []) => ({
  eval_time: `${minute}m`,
  alertname: alert,
  exp_alerts: expected,
});

/** promtool's tests of one alert, each with a name of its own to be found by in what promtool says. */
function testsOf({ alert, bad, firesAt, silentAt, labels, summary, silent }: AlertCase): object[] {
  const rule = ruleOf(alert);
  const { description, runbook_url } = rule.annotations;
  const firing = {
    exp_labels: { ...labels, ...rule.labels },
    exp_annotations: { summary, description, runbook_url },
  };
  const test = (name: string, series: Series, expected: readonly object[]) => ({
    name: `${alert}: ${name}`,
    interval: '1m',
    input_series: inputs(series),
    alert_rule_test: expected,
  });
  return [
    // trouble of a moment is none yet, where a rule says for how long
    test('fires and resolves', bad, [
      ...(rule.for === undefined ? [] : [at(0, alert)]),
      at(firesAt, alert, [firing]),
      at(silentAt, alert),
    ]),
    ...Object.entries(silent).map(([why, series]) => test(why, series, [at(firesAt, alert), at(silentAt, alert)])),
  ];
}

/** The rules that an alert rests on, and itself last: all the others would be computed for nothing, again and again. */
function rulesOf(alert: Alert): object[] {
  const wanted = (expr: string): string[] =>
    RECORDINGS.filter(({ record }) => expr.includes(record)).flatMap(({ record, expr: of }) => [...wanted(of), record]);
  const needed = new Set(wanted(alert.expr));
  return [...RECORDINGS.filter(({ record }) => needed.has(record)), alert];
}

/** Runs the tests of each alert on its own rules. Fails with what promtool says. */
async function promtool(step: string, cases: readonly AlertCase[]): Promise<void> {
  const folder = await mkdtemp(path.join(inject('scratch'), 'rules-'));
  const files = cases.map(async (alertCase) => {
    const file = (name: string) => path.join(folder, `${alertCase.alert}-${name}.yml`);
    const rules = { groups: [{ name: 'rules', rules: rulesOf(ruleOf(alertCase.alert)) }] };
    // JSON is YAML
    await writeFile(file('rules'), JSON.stringify(rules));
    const tests = { rule_files: [file('rules')], evaluation_interval: step, tests: testsOf(alertCase) };
    await writeFile(file('tests'), JSON.stringify(tests));
    return file('tests');
  });
  await runPromtool(['test', 'rules', ...(await Promise.all(files))]);
}

describe('monitoring/prometheus.yml', () => {
  it.skipIf(promtoolMissing())('is one that Prometheus takes, with its rules', async () => {
    const folder = await mkdtemp(path.join(inject('scratch'), 'config-'));
    for (const name of ['prometheus.yml', 'alerts.yml', 'recording-rules.yml'])
      await copyFile(path.join(MONITORING, name), path.join(folder, name));
    // promtool looks whether it is there
    await writeFile(path.join(folder, 'bore-metrics-token'), 'token');
    const said = await runPromtool(['check', 'config', path.join(folder, 'prometheus.yml')]);
    expect(said).toContain(`SUCCESS: ${ALERTS.length} rules found`);
    expect(said).toContain(`SUCCESS: ${RECORDINGS.length} rules found`);
  });

  it('scrapes what the guide scrapes, and what else there is', () => {
    const Jobs = z.object({ scrape_configs: z.array(z.object({ job_name: z.string() })) });
    const jobs = Jobs.parse(shipped('prometheus.yml')).scrape_configs.map(({ job_name }) => job_name);
    const guide = ['bore-backend', 'postgresql', 'redis', 'nginx'];
    expect(jobs).toEqual(expect.arrayContaining(guide));
    // a job that a rule names is one of them
    for (const { expr } of ALERTS)
      for (const [, job = ''] of expr.matchAll(/\bjob="([\w-]+)"/g)) expect(jobs).toContain(job);
  });
});

describe('monitoring/alerts.yml', () => {
  it('has no alert without a case in which it fires and one in which it is silent', () => {
    expect(CASES.map(({ alert }) => alert).sort()).toEqual(ALERTS.map(({ alert }) => alert).sort());
    for (const { alert, bad, silent } of CASES) {
      expect(Object.keys(bad), alert).not.toEqual([]);
      expect(Object.keys(silent), alert).not.toEqual([]);
    }
  });

  it('sends people to the runbook from one place, which can be replaced', () => {
    for (const { alert, annotations } of ALERTS)
      expect(annotations.runbook_url).toBe(`docs/runbook.md#${alert.toLowerCase()}`);
  });

  it.skipIf(promtoolMissing()).each(STEPS)(
    'fires, stays silent just below, and resolves: cases in steps of $step',
    async ({ step, from, to }) => {
      await promtool(
        step,
        CASES.filter(({ silentAt }) => silentAt > from && silentAt <= to),
      );
    },
    PROMTOOL_MS,
  );

  it.skipIf(promtoolMissing())(
    'is silent where there is nothing to look at',
    async () => {
      const file = path.join(await mkdtemp(path.join(inject('scratch'), 'rules-')), 'nothing.yml');
      const rule_files = ['recording-rules.yml', 'alerts.yml'].map((rules) => path.join(MONITORING, rules));
      const test = { interval: '1m', input_series: [], alert_rule_test: ALERTS.map(({ alert }) => at(120, alert)) };
      await writeFile(file, JSON.stringify({ rule_files, evaluation_interval: '1m', tests: [test] }));
      await runPromtool(['test', 'rules', file]);
    },
    PROMTOOL_MS,
  );
});
