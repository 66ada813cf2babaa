/** Files of settings that pages show are read by systemd too, which knows comments only where a line begins with one. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

import { expect, it } from 'vitest';

import { PROJECT_DIR } from '../../src/local/state-folders.js';

const folder = path.join(PROJECT_DIR, 'docs');
const blocks = readdirSync(folder)
  .filter((name) => name.endsWith('.md'))
  .flatMap((name) => [...readFileSync(path.join(folder, name), 'utf8').matchAll(/```ini\n(.+?)```/gs)])
  .map(([, text = '']) => text);

it('settings on the pages have no comment behind their value', () => {
  const lines = blocks.flatMap((text) => text.split('\n')).filter((line) => /^[A-Z][A-Z0-9_]*=/.test(line));
  expect(lines.length).toBeGreaterThan(30);
  expect(lines.filter((line) => /\s#/.test(line))).toEqual([]);
});
