/** docs/runbook.md has a section for each alert, and what it tells people to type is there. */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

import { describe, expect, it } from 'vitest';
import { z } from 'zod';

import { PROJECT_DIR } from '../../src/local/state-folders.js';
import { knownMetrics } from './known-metrics.js';
import { selectorsOf } from './promql.js';
import { ALERTS } from './rule-files.js';

const DOCS = path.join(PROJECT_DIR, 'docs');
const read = (name: string) => readFileSync(path.join(PROJECT_DIR, name), 'utf8');
const RUNBOOK = read('docs/runbook.md');
const SECTIONS = RUNBOOK.split(/^## /m)
  .slice(1)
  .map((text) => ({ name: text.slice(0, text.indexOf('\n')), text }));

/** GitHub's name for a heading. */
const anchorOf = (heading: string) =>
  heading
    .toLowerCase()
    .replaceAll(/[^\w\- ]/g, '')
    .replaceAll(' ', '-');

describe('docs/runbook.md', () => {
  it('has a section for each alert, in their order, and for nothing else', () => {
    expect(SECTIONS.map(({ name }) => name)).toEqual(ALERTS.map(({ alert }) => alert));
    expect(ALERTS.map(({ annotations }) => annotations.runbook_url)).toEqual(
      SECTIONS.map(({ name }) => `docs/runbook.md#${anchorOf(name)}`),
    );
  });

  it('says in each what it means, how to look, and what to do', () => {
    for (const { name, text } of SECTIONS) {
      const parts = /\*\*Means\.\*\* (.+?)\n\n\*\*Look\.\*\*\n\n```sh\n(.+?)```\n\n\*\*Do\.\*\* (.+)/s.exec(text);
      expect(parts, name).not.toBeNull();
      for (const part of parts?.slice(1) ?? []) expect(part.trim().length, name).toBeGreaterThan(10);
    }
  });

  it('asks Prometheus for figures that there are', () => {
    const known = knownMetrics();
    const asked = [...RUNBOOK.matchAll(/^prom '(.+)'$/gm)].map(([, expr = '']) => expr);
    expect(asked.length).toBeGreaterThan(ALERTS.length / 2);
    for (const expr of asked)
      for (const { metric } of selectorsOf(expr)) expect(known.has(metric), `${expr}: ${metric}`).toBe(true);
  });

  it('asks the API for routes that there are', () => {
    const { paths } = z.object({ paths: z.record(z.string(), z.unknown()) }).parse(JSON.parse(read('openapi.json')));
    const asked = [...RUNBOOK.matchAll(/^api (\S+)/gm)].map(([, route]) => `/api/v1/${route}`);
    const told = [...RUNBOOK.matchAll(/`(?:POST|PATCH|DELETE|GET) (admin\/\S+?)`/g)].map(
      ([, route = '']) => `/api/v1/${route.replaceAll(/:(\w+)/g, '{$1}')}`,
    );
    expect(asked.length).toBeGreaterThan(3);
    expect(told.length).toBeGreaterThan(3);
    for (const route of [...asked, ...told]) expect(Object.keys(paths)).toContain(route);
  });

  it.each(['docs/runbook.md', 'docs/monitoring.md'])('links from %s to pages and headings that there are', (page) => {
    for (const [, file = '', anchor] of read(page).matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)/g)) {
      const target = file === '' ? path.join(PROJECT_DIR, page) : path.join(DOCS, file);
      expect(existsSync(target), `${page}: ${file}`).toBe(true);
      if (anchor === undefined) continue;
      const headings = [...readFileSync(target, 'utf8').matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
        anchorOf(heading),
      );
      expect(headings, `${page}: ${file}#${anchor}`).toContain(anchor);
    }
  });
});
