/** monitoring/grafana-dashboard.json after the rules of grafana/dashboard-linter, and what every expression of monitoring/ asks for. */
import { describe, expect, it } from 'vitest';
import { z } from 'zod';

import { DASHBOARD, PANELS } from './dashboard-file.js';
import { knownMetrics } from './known-metrics.js';
import { selectorsOf } from './promql.js';
import { ALERTS, RECORDINGS, shipped } from './rule-files.js';

const DATASOURCE = { type: 'prometheus', uid: '${datasource}' };
/** These have no instance: computed over all of them, or Prometheus's own. */
const hasInstance = (metric: string) => !metric.includes(':') && metric !== 'ALERTS';
/** One gauge has a name of the guide’s that looks like a counter’s. */
const COUNTER = /^(?!bore_capacity_total$).*_(total|count|sum|bucket)$/;
/** Prometheus's name for a counter without `_total`. */
const COUNTERS_OF_OTHERS = /^pg_stat_database_(xact|blks)_/;
const OVER_TIME = ['rate', 'increase', 'irate'];
/** What a description says at least: what is normal. */
const ADVICE = /normal:|target|fewer than/i;

const EXPRESSIONS = PANELS.flatMap(({ title, targets }) => targets.map(({ expr }) => ({ title, expr })));

describe('the dashboard', () => {
  it('has its data source, jobs and instances as variables', () => {
    const { list } = DASHBOARD.templating;
    expect(list.map(({ name, label, type }) => [name, label, type])).toEqual([
      ['datasource', 'Data source', 'datasource'],
      ['job', 'Job', 'query'],
      ['instance', 'Instance', 'query'],
    ]);
    for (const { name, type, query, multi, allValue } of list) {
      if (type === 'datasource') continue;
      expect([multi, allValue], name).toEqual([true, '.+']);
      expect(z.object({ query: z.string() }).parse(query).query).toMatch(/^label_values\(/);
    }
  });

  it('says of every panel what it shows, in which unit, what is normal and what to do', () => {
    for (const { title, description = '', fieldConfig, datasource, targets } of PANELS) {
      expect(title, JSON.stringify(targets)).not.toBe('');
      expect(description.length, title).toBeGreaterThan(30);
      expect(description, title).toMatch(ADVICE);
      expect(fieldConfig?.defaults.unit, title).toMatch(/^\w+$/);
      expect(targets.length, title).toBeGreaterThan(0);
      for (const from of [datasource, ...targets.map((target) => target.datasource)])
        expect(from, title).toEqual(DATASOURCE);
      expect(new Set(targets.map(({ refId }) => refId)).size, title).toBe(targets.length);
    }
  });

  it('places every panel by itself', () => {
    expect(new Set(DASHBOARD.panels.map(({ id }) => id)).size).toBe(DASHBOARD.panels.length);
    const taken = new Map<string, string>();
    for (const { title, gridPos } of DASHBOARD.panels) {
      expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++)
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(taken.get(`${x} ${y}`), `${title} lies on another`).toBeUndefined();
          taken.set(`${x} ${y}`, title);
        }
    }
  });

  it('asks for the chosen jobs and instances alone', () => {
    for (const { title, expr } of EXPRESSIONS) {
      const selectors = selectorsOf(expr);
      expect(selectors, title).not.toEqual([]);
      for (const { metric, matchers } of selectors) {
        expect(matchers, `${title}: ${expr}`).toContain('job=~"$job"');
        if (hasInstance(metric)) expect(matchers, `${title}: ${expr}`).toContain('instance=~"$instance"');
      }
    }
  });

  it('shows counters as what they grow by, over Grafana’s interval', () => {
    for (const { title, expr } of EXPRESSIONS)
      for (const { metric, range, givenTo } of selectorsOf(expr)) {
        const isCounter = (COUNTER.test(metric) && hasInstance(metric)) || COUNTERS_OF_OTHERS.test(metric);
        expect(OVER_TIME.includes(givenTo ?? ''), `${title}: ${metric}`).toBe(isCounter);
        if (range !== undefined) expect(range, title).toBe('$__rate_interval');
      }
  });

  it('is put where Grafana’s provisioning looks, with the data source that it has', () => {
    const provider = z.object({
      providers: z.tuple([z.object({ type: z.literal('file'), allowUiUpdates: z.boolean() })]),
    });
    const { providers } = provider.parse(shipped('grafana/provisioning/dashboards/bore.yml'));
    // the dashboard says that it is not edited
    expect(providers[0].allowUiUpdates).toBe(DASHBOARD.editable);
    const Source = z.object({ type: z.string(), jsonData: z.object({ timeInterval: z.string() }) });
    const source = z.object({ datasources: z.tuple([Source]) });
    const { datasources } = source.parse(shipped('grafana/provisioning/datasources/prometheus.yml'));
    const { global } = z.object({ global: z.object({ scrape_interval: z.string() }) }).parse(shipped('prometheus.yml'));
    expect(datasources[0]).toMatchObject({ type: 'prometheus', jsonData: { timeInterval: global.scrape_interval } });
  });
});

describe('every expression of monitoring/', () => {
  it('asks for metrics that there are', () => {
    const known = knownMetrics();
    const rules = [
      ...ALERTS.map(({ alert, expr }) => ({ title: alert, expr })),
      ...RECORDINGS.map(({ record, expr }) => ({ title: record, expr })),
    ];
    for (const { title, expr } of [...EXPRESSIONS, ...rules])
      for (const { metric } of selectorsOf(expr)) expect(known.has(metric), `${title} asks for ${metric}`).toBe(true);
  });
});
