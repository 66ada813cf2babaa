/** Every shell block of README.md and docs/ is run here, is run by a test that it names, or says why not. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { PROJECT_DIR } from '../../src/local/state-folders.js';
import { redisMissing } from '../harness/own-redis.js';
import { promtoolMissing } from '../monitoring/programs.js';
import { machineChange, readPage, type ShellBlock, without } from './commands.js';
import { ReadableInstallation } from './readable-installation.js';

const read = (name: string) => readFileSync(path.join(PROJECT_DIR, name), 'utf8');
const NAMES = ['README.md', ...readdirSync(path.join(PROJECT_DIR, 'docs')).map((name) => `docs/${name}`)];
const PAGES = NAMES.filter((name) => name.endsWith('.md')).map((name) => readPage(name, read(name)));
const BLOCKS = PAGES.flatMap(({ blocks }) => blocks);

const isMarked = ({ notRun, runBy }: ShellBlock) => notRun !== undefined || runBy.length > 0;
/** Programs that some blocks need, and that a machine may lack. */
const PROGRAMS = ['jq', 'curl', 'psql', 'pg_isready', 'redis-cli'];

describe('what pages say of their commands', () => {
  it.each(BLOCKS.filter(isMarked).map((block) => [`${block.page}:${block.line}`, block] as const))('%s', (_, block) => {
    const { notRun, runBy, text } = block;
    // a reason is a sentence of a few words
    if (notRun !== undefined) expect(notRun.split(' ').length).toBeGreaterThanOrEqual(3);
    for (const test of notRun?.match(/test\/\S+\.test\.ts/g) ?? [])
      expect(existsSync(path.join(PROJECT_DIR, test))).toBe(true);
    for (const { test, text: part } of runBy) {
      expect(existsSync(path.join(PROJECT_DIR, test)), test).toBe(true);
      expect(read(test), test).toContain(part);
      expect(text).toContain(part);
    }
  });

  it('leaves no programs out that a page does not have', () => {
    for (const { blocks, leftOut } of PAGES)
      for (const program of leftOut)
        expect(
          blocks.some(({ text }) => without(text, [program]) !== text),
          program,
        ).toBe(true);
  });

  it('never leaves a block to be run here that changes the machine', () => {
    const changes = PAGES.flatMap(({ blocks, leftOut }) =>
      blocks
        .filter((block) => !isMarked(block))
        .flatMap(({ page, line, text }) => {
          const change = machineChange(without(text, leftOut));
          return change === undefined ? [] : [`${page}:${line}: ${change}`];
        }),
    );
    expect(changes).toEqual([]);
  });

  it('runs more than it does not', () => {
    expect(BLOCKS.filter((block) => !isMarked(block)).length).toBeGreaterThan(BLOCKS.length / 2);
  });
});

describe('reading a page', () => {
  const page = (...parts: string[]) => readPage('x.md', parts.join('\n'));

  it('takes comments for the block that follows them', () => {
    const [first, second, third] = page(
      '<!-- not run: no such machine -->\n\n```sh\na\n```',
      'text\n```json\n{}\n```',
      '<!-- run: test/a.test.ts "b" -->\n<!-- run: test/c.test.ts "b" -->\n```bash\nb\n```',
      '<!-- not run: not of the next -->\ntext\n```sh\nc\n```',
    ).blocks;
    expect(first).toMatchObject({ line: 3, text: 'a', notRun: 'no such machine', runBy: [] });
    expect(second?.runBy).toEqual([
      { test: 'test/a.test.ts', text: 'b' },
      { test: 'test/c.test.ts', text: 'b' },
    ]);
    expect(third).toMatchObject({ text: 'c', notRun: undefined, runBy: [] });
  });

  it('knows what changes a machine', () => {
    const lines = ['sudo reboot', 'a && systemctl restart x', 'cp a /etc/b', 'npm test  # all', 'rm -f /var/x'];
    for (const line of lines) expect(machineChange(`echo a\n${line}`)).toBe(line);
    for (const line of ['curl http://a/etc', 'echo a # sudo b', 'npm run -s borectl', 'cp a b'])
      expect(machineChange(line)).toBeUndefined();
  });

  it('leaves lines of some programs out, whole', () => {
    const { leftOut } = page('<!-- not run on this page: top, du, curl http://a: only there -->');
    expect(leftOut).toEqual(['top', 'du', 'curl http://a']);
    const text = 'top -H\necho top\ndu \\\n  -s\n  top\ntopless\ncurl http://a # x\ncurl http://b';
    expect(without(text, leftOut)).toBe('echo top\ntopless\ncurl http://b');
  });
});

describe('commands of the pages', () => {
  const reason = redisMissing() ?? promtoolMissing();
  let own: ReadableInstallation;

  beforeEach(({ skip }) => {
    if (reason !== undefined) skip(reason);
  });
  beforeAll(async () => {
    if (reason !== undefined) return;
    own = await ReadableInstallation.start('127.51.0.1');
    const [, sql = ''] = /```sql\n(.+?)```/s.exec(read('docs/deployment.md')) ?? [];
    await own.runSql(sql);
  }, 120_000);
  afterAll(() => own?.stop());

  const unmarked = PAGES.flatMap(({ blocks, leftOut }) => {
    const first = blocks.filter(({ isFirst }) => isFirst);
    return blocks
      .filter((block) => !isMarked(block) && !block.isFirst)
      .map((block) => [`${block.page}:${block.line}`, { block, first, leftOut }] as const);
  });

  it.for(unmarked)('%s', async ([, { block, first, leftOut }], { skip }) => {
    const text = without(block.text, leftOut);
    const missing = PROGRAMS.filter((name) => new RegExp(`\\b${name}\\b`).test(text)).filter(
      (name) => spawnSync(name, ['--version']).error,
    );
    if (missing.length > 0) return skip(`not installed: ${missing.join(', ')}`);
    await own.run(block, first, leftOut);
  });

  it('notices a command that fails', async () => {
    const block = { page: 'x.md', line: 1, notRun: undefined, runBy: [], isFirst: false };
    const asked = own.run({ ...block, text: 'curl -s http://127.0.0.1:3000/nowhere' }, [], []);
    await expect(asked).rejects.toThrow('x.md:1 fails (22)');
    await expect(own.run({ ...block, text: 'false | cat\ntrue' }, [], [])).rejects.toThrow('x.md:1 fails (1)');
  });
});
