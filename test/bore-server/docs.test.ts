import { readFileSync } from 'node:fs';

import { describe, expect, it } from 'vitest';

import { Limits } from '../../src/bore-server/limits.js';
import { ConnectionEndReason } from '../../src/protocol/reports.js';

const DOC = readFileSync(new URL('../../docs/bore-server.md', import.meta.url), 'utf8');

const rowsOf = (heading: string) =>
  [
    ...(DOC.slice(DOC.indexOf(heading))
      .split('\n## ')[0]
      ?.matchAll(/^\| `(.+?)`\s+\| (.+?)\s+\|(?: (.+?)\s+\|)?$/gm) ?? []),
  ].map(([, name, second, third]) => [name, second, third]);

describe('docs/bore-server.md', () => {
  it('lists every limit with its default', () => {
    const defaults = Limits.parse({});
    expect(rowsOf('## Limits')).toEqual(
      Limits.keyof().options.map((name) => [
        `BORE_${name.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`,
        String(defaults[name]),
        Limits.shape[name].description,
      ]),
    );
  });

  it('lists every reason for the end of a connection', () => {
    expect(rowsOf('## Connections, and why they end').map(([name]) => name)).toEqual(ConnectionEndReason.options);
  });
});
