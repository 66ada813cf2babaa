import { z } from 'zod';

import { shipped } from './rule-files.js';

const Datasource = z.strictObject({ type: z.literal('prometheus'), uid: z.string() });

const Target = z.object({ refId: z.string(), datasource: Datasource, expr: z.string(), legendFormat: z.string() });

const Panel = z.object({
  id: z.int(),
  type: z.enum(['row', 'stat', 'timeseries']),
  title: z.string(),
  description: z.string().optional(),
  datasource: Datasource.optional(),
  gridPos: z.strictObject({ x: z.int(), y: z.int(), w: z.int(), h: z.int() }),
  targets: z.array(Target).default([]),
  fieldConfig: z.object({ defaults: z.object({ unit: z.string().optional() }) }).optional(),
});

const Variable = z.object({
  name: z.string(),
  label: z.string(),
  type: z.enum(['datasource', 'query']),
  query: z.union([z.string(), z.object({ query: z.string() })]),
  multi: z.boolean(),
  allValue: z.string().optional(),
});

/** monitoring/grafana-dashboard.json, as far as it is looked at. */
export const DASHBOARD = z
  .object({
    uid: z.string(),
    editable: z.literal(false),
    templating: z.object({ list: z.array(Variable) }),
    panels: z.array(Panel),
  })
  .parse(shipped('grafana-dashboard.json'));

/** Those that show something. */
export const PANELS = DASHBOARD.panels.filter(({ type }) => type !== 'row');
