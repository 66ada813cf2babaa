/** Links between the pages lead somewhere, and docs/architecture.md names files that there are. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

import { describe, expect, it } from 'vitest';

import { PROJECT_DIR } from '../../src/local/state-folders.js';

const read = (file: string) => readFileSync(file, 'utf8');
const PAGES = [
  'README.md',
  'CONTRIBUTING.md',
  ...readdirSync(path.join(PROJECT_DIR, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];

/** GitHub's name for a heading. */
const anchorOf = (heading: string) =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}_\- ]/gu, '')
    .replaceAll(' ', '-');

const anchorsOf = (markdown: string) =>
  new Set([...markdown.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => anchorOf(heading)));

describe('links', () => {
  it.each(PAGES)('of %s', (page) => {
    const file = path.join(PROJECT_DIR, page);
    // what stands in code is none
    const text = read(file)
      .replaceAll(/^( *)```.*?^\1```$/gms, '')
      .replaceAll(/`[^`\n]*`/g, '`code`');
    for (const [, to = '', anchor] of text.matchAll(/\]\((?!\w+:)([^)#\s]*)(?:#([^)]+))?\)/g)) {
      const target = to === '' ? file : path.join(path.dirname(file), to);
      expect(existsSync(target), `${page}: ${to}`).toBe(true);
      if (anchor !== undefined) expect(anchorsOf(read(target)), `${page}: ${to}#${anchor}`).toContain(anchor);
    }
  });

  it('that preflight gives lead to headings', () => {
    const folder = path.join(PROJECT_DIR, 'src/preflight');
    const texts = readdirSync(folder).map((name) => read(path.join(folder, name)));
    const links = texts.flatMap((text) => [...text.matchAll(/(docs\/[\w-]+\.md)(?:#([\w-]+))?/g)]);
    expect(links.length).toBeGreaterThan(10);
    for (const [link, to = '', anchor] of links) {
      const target = path.join(PROJECT_DIR, to);
      expect(existsSync(target), link).toBe(true);
      if (anchor !== undefined) expect(anchorsOf(read(target)), link).toContain(anchor);
    }
  });
});

it('docs/architecture.md names files that there are', () => {
  const text = read(path.join(PROJECT_DIR, 'docs/architecture.md'));
  const named = [...text.matchAll(/`((?:src|test|deploy|prisma)\/[^`*]+)`/g)].map(([, file = '']) => file);
  expect(named.length).toBeGreaterThan(25);
  for (const file of named) expect(existsSync(path.join(PROJECT_DIR, file)), file).toBe(true);
});
