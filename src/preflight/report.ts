import type { Status } from './finding.js';
import type { Result } from './preflight.js';

const MARKS: Readonly<Record<Status, string>> = { pass: 'pass', fail: 'FAIL', 'not-checked': ' -- ' };

/** For people. */
export function textOf(results: readonly Result[]): string {
  const lines: string[] = [];
  let group = '';
  for (const result of results) {
    if (result.group !== group) lines.push(...(group === '' ? [] : ['']), result.group);
    group = result.group;
    lines.push(`  ${MARKS[result.status]}  ${result.title}: ${result.found}`);
    if (result.mend !== undefined) lines.push(`        → ${result.mend}`);
  }
  const { passed, failed, notChecked } = countsOf(results);
  lines.push('', `${passed} passed, ${failed} failed, ${notChecked} not checked`);
  return lines.join('\n');
}

/** For programs: `{ passed, failed, notChecked, checks: [{ id, group, title, status, found, mend? }] }`. */
export function jsonOf(results: readonly Result[]): string {
  return JSON.stringify({ ...countsOf(results), checks: results }, null, 2);
}

export function countsOf(results: readonly Result[]): { passed: number; failed: number; notChecked: number } {
  const count = (status: Status) => results.filter((result) => result.status === status).length;
  return { passed: count('pass'), failed: count('fail'), notChecked: count('not-checked') };
}
