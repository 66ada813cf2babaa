import { readFileSync } from 'node:fs';
import path from 'node:path';

import { parse } from 'yaml';
import { z } from 'zod';

import { PROJECT_DIR } from '../../src/local/state-folders.js';

export const MONITORING = path.join(PROJECT_DIR, 'monitoring');

const Alert = z.strictObject({
  alert: z.string(),
  expr: z.string(),
  for: z.string().optional(),
  labels: z.record(z.string(), z.string()),
  annotations: z.strictObject({ summary: z.string(), description: z.string(), runbook_url: z.string() }),
});
export type Alert = z.infer<typeof Alert>;

const Recording = z.strictObject({ record: z.string(), expr: z.string() });
export type Recording = z.infer<typeof Recording>;

const file = <Rule extends z.ZodType>(rule: Rule) =>
  z.strictObject({ groups: z.array(z.strictObject({ name: z.string(), rules: z.array(rule) })) });

/** A file of monitoring/, parsed. */
export const shipped = (name: string): unknown => parse(readFileSync(path.join(MONITORING, name), 'utf8'));

const alertFile = file(Alert).parse(shipped('alerts.yml'));
const recordingFile = file(Recording).parse(shipped('recording-rules.yml'));

export const ALERTS: readonly Alert[] = alertFile.groups.flatMap(({ rules }) => rules);
export const RECORDINGS: readonly Recording[] = recordingFile.groups.flatMap(({ rules }) => rules);
