/** What docs/releasing.md says: the scripts of a release, run as they are. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { chmod, cp, mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { z } from 'zod';

import { PROJECT_DIR } from '../../src/local/state-folders.js';

interface Ended {
  readonly code: number;
  readonly said: string;
}

/** Files that name the version of our images. */
const IMAGES = [
  'Dockerfile',
  'compose.yaml',
  'docs/containers.md',
  'k8s/overlays/development/kustomization.yaml',
  'k8s/overlays/production/kustomization.yaml',
];

const newFolder = (name: string) => mkdtemp(path.join(inject('scratch'), `${name}-`));

function run(program: string, args: readonly string[], cwd = PROJECT_DIR, env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  // as from a terminal: npm, which may be running this, has named itself there
  const { npm_execpath: _, ...ours } = process.env;
  const options = { cwd, env: { ...ours, ...env }, maxBuffer: 64 * 1024 * 1024 };
  return new Promise((resolve) => {
    execFile(program, [...args], options, (error, stdout, stderr) =>
      resolve({ code: error ? Number(error.code ?? 1) : 0, said: stdout + stderr }),
    );
  });
}

const Manifest = z.object({ version: z.string(), dependencies: z.record(z.string(), z.string()) });
const manifest = Manifest.parse(JSON.parse(await readFile(path.join(PROJECT_DIR, 'package.json'), 'utf8')));

it('npm run sbom lists what production needs, with hashes and licences, and nothing else', async () => {
  const { code, said } = await run('npm', ['run', '-s', 'sbom']);
  expect(code, said).toBe(0);
  const Component = z.object({
    name: z.string(),
    version: z.string(),
    purl: z.string(),
    hashes: z.array(z.object({ alg: z.string(), content: z.string() })).optional(),
    licenses: z.array(z.unknown()).optional(),
  });
  const Bill = z.object({
    bomFormat: z.literal('CycloneDX'),
    metadata: z.object({ component: z.object({ version: z.string() }) }),
    components: z.array(Component),
  });
  const { metadata, components } = Bill.parse(JSON.parse(said));
  expect(metadata.component.version).toBe(manifest.version);
  const known = new Map(components.map((each) => [`${each.name}@${each.version}`, each]));
  for (const [name, version] of Object.entries(manifest.dependencies)) {
    const component = known.get(`${name}@${version}`);
    expect(component?.hashes, name).toEqual([{ alg: 'SHA-512', content: expect.stringMatching(/^[0-9a-f]{128}$/) }]);
    expect(component?.licenses, name).toHaveLength(1);
  }
  const names = new Set(components.map(({ name }) => name));
  for (const name of ['vitest', 'oxlint', 'prettier']) expect(names.has(name), name).toBe(false);
});

describe('npm run licences', () => {
  const licences = (...args: string[]) => run(process.execPath, ['scripts/licences.mjs', ...args]);

  it('passes here', async () => {
    expect(await licences()).toEqual({
      code: 0,
      said: expect.stringMatching(/^licences: \d{3} packages, all of them allowed\n$/),
    });
  });

  it.each([
    [{ license: 'MIT' }, true],
    [{ license: '(MIT OR GPL-3.0-only)' }, true],
    [{ license: '(MIT AND Zlib)' }, true],
    [{ license: '(MIT AND GPL-3.0-only)' }, false],
    [{ license: 'GPL-3.0-only' }, false],
    [{ license: 'AGPL-3.0-only', dev: true }, false],
    [{ license: 'MPL-2.0', dev: true }, true],
    [{ license: 'MPL-2.0' }, false],
    [{ license: 'UNLICENSED' }, false],
    [{}, false],
  ])('%j', async (entry, allowed) => {
    const lock = path.join(await newFolder('licences'), 'package-lock.json');
    const packages = { '': {}, 'node_modules/a/node_modules/@x/some': { version: '1.2.3', ...entry } };
    await writeFile(lock, JSON.stringify({ packages }));
    const { code, said } = await licences(lock);
    expect(code, said).toBe(allowed ? 0 : 1);
    if (!allowed) expect(said).toContain('@x/some@1.2.3: ');
  });

  it('a decision on one package is one on its licence too', async () => {
    const lock = path.join(await newFolder('licences'), 'package-lock.json');
    const packages = { 'node_modules/elkjs': { version: '9.0.0', license: 'GPL-3.0-only' } };
    await writeFile(lock, JSON.stringify({ packages }));
    expect(await licences(lock)).toMatchObject({ code: 1, said: expect.stringContaining('elkjs@9.0.0: GPL-3.0-only') });
  });
});

describe('npm run audit', () => {
  /** Two questions of 30 s, and npm's own start. */
  const AUDIT_MS = 90_000;
  /** Knows no such question, as registries of companies do. */
  const registry = http.createServer((_request, response) => void response.writeHead(404).end('{}'));
  let url: string;

  beforeAll(async () => {
    await once(registry.listen(0, '127.0.0.1'), 'listening');
    const address = registry.address();
    url = `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}/`;
  });
  afterAll(() => registry.close().closeAllConnections());

  it(
    'says "not run" with the reason where the registry does not know, and fails nothing',
    async () => {
      const { code, said } = await run('npm', ['run', '-s', 'audit'], PROJECT_DIR, { npm_config_registry: url });
      expect(said).toMatch(/^audit: signatures not run: \S.+\naudit: advisories not run: \S.+\n$/);
      expect(said).not.toContain('passed');
      expect(code).toBe(0);
    },
    AUDIT_MS,
  );

  /** An npm that answers in the words of the real one: a registry whose signatures are bad is not to be had. */
  async function audit(answers: { signatures: object; advisories: object }, ...args: string[]): Promise<Ended> {
    const npm = path.join(await newFolder('npm'), 'npm.cjs');
    const { signatures, advisories } = answers;
    await writeFile(
      npm,
      `process.stdout.write(process.argv[3] === 'signatures' ? ${JSON.stringify(JSON.stringify(signatures))} : ${JSON.stringify(JSON.stringify(advisories))});
      process.exitCode = 1;`,
    );
    return run(process.execPath, ['scripts/audit.mjs', ...args], PROJECT_DIR, { npm_execpath: npm });
  }
  const counts = { info: 0, low: 0, moderate: 0, high: 0, critical: 0, total: 0 };
  const none = { metadata: { vulnerabilities: counts } };
  const some = { metadata: { vulnerabilities: { ...counts, low: 2, high: 1, total: 3 } } };
  const good = { invalid: [], missing: [] };

  it('passes where both are good', async () => {
    const said = 'audit: signatures passed\naudit: advisories passed\n';
    expect(await audit({ signatures: good, advisories: none })).toEqual({ code: 0, said });
  });

  it.each([
    [{ invalid: [{ name: 'zod', version: '4.6.7' }], missing: [] }, 'zod@4.6.7 (not what was signed)'],
    [{ invalid: [], missing: [{ name: 'pg', version: '8.23.1' }] }, 'pg@8.23.1 (not signed)'],
  ])('fails on a signature: %j', async (signatures, named) => {
    const { code, said } = await audit({ signatures, advisories: none });
    expect(said).toContain(`audit: signatures FAILED: ${named}\n`);
    expect(code).toBe(1);
  });

  it('counts advisories, and fails on a high one for a release only', async () => {
    const answers = { signatures: good, advisories: some };
    const said = expect.stringContaining('audit: advisories KNOWN: 2 low, 1 high; ');
    expect(await audit(answers)).toEqual({ code: 0, said });
    expect(await audit(answers, '--release')).toEqual({ code: 1, said });
  });

  it('takes what is no answer for none', async () => {
    const error = {
      error: { code: 'ENOAUDIT', summary: 'Your configured registry\ndoes not support audit requests.' },
    };
    expect(await audit({ signatures: {}, advisories: error }, '--release')).toEqual({
      code: 0,
      said:
        'audit: signatures not run: npm gave no answer and no reason\n' +
        'audit: advisories not run: Your configured registry does not support audit requests.\n',
    });
  });
});

describe('npm run release', () => {
  let clone: string;

  const git = async (...args: string[]) => {
    const identity = ['-c', 'user.name=Test', '-c', 'user.email=test@example.com'];
    const { code, said } = await run('git', [...identity, ...args], clone);
    if (code !== 0) throw new Error(said);
    return said.trim();
  };
  const identity = {
    GIT_AUTHOR_NAME: 'Test',
    GIT_AUTHOR_EMAIL: 'test@example.com',
    GIT_COMMITTER_NAME: 'Test',
    GIT_COMMITTER_EMAIL: 'test@example.com',
  };
  const release = (...args: string[]) => run(process.execPath, ['scripts/release.mjs', ...args], clone, identity);
  const read = (file: string) => readFile(path.join(clone, file), 'utf8');

  /** Of the files that a release touches. */
  beforeEach(async () => {
    clone = await newFolder('release');
    await chmod(clone, 0o755);
    for (const file of [...IMAGES, 'scripts/release.mjs', 'package.json', 'package-lock.json']) {
      await mkdir(path.dirname(path.join(clone, file)), { recursive: true });
      await cp(path.join(PROJECT_DIR, file), path.join(clone, file));
    }
    const changelog =
      '# Changelog\n\n## Unreleased\n\n### Added\n\n- A thing, in `code`.\n\n## 0.0.9 – 2026-01-01\n\n- An old one.\n';
    await writeFile(path.join(clone, 'CHANGELOG.md'), changelog);
    await git('init', '--quiet');
    await git('add', '--all');
    await git('commit', '--quiet', '--message', 'all');
  });

  it('writes the version everywhere, commits, and tags with what has changed', async () => {
    const days = [new Date().toISOString().slice(0, 10)];
    expect(await release('9.10.11')).toEqual({ code: 0, said: 'v9.10.11 is made here: git push --follow-tags\n' });
    expect(await git('status', '--porcelain')).toBe('');
    expect(await git('log', '-1', '--format=%s')).toBe('release: 9.10.11');
    expect(await git('cat-file', '-t', 'v9.10.11')).toBe('tag');
    const message = await git('tag', '--list', '--format=%(contents)', 'v9.10.11');
    expect(message).toBe('v9.10.11\n\n### Added\n\n- A thing, in `code`.');
    for (const file of [...IMAGES, 'package.json', 'package-lock.json']) {
      const text = await read(file);
      expect(text, file).toContain('9.10.11');
      if (IMAGES.includes(file)) expect(text, file).not.toContain(manifest.version);
    }
    days.push(new Date().toISOString().slice(0, 10));
    const [, day] =
      /## Unreleased\n\n## 9\.10\.11 – (.*)\n\n### Added\n\n- A thing/.exec(await read('CHANGELOG.md')) ?? [];
    expect(days).toContain(day);
    // nothing is below Unreleased now
    expect(await release('9.10.12')).toMatchObject({ code: 1, said: expect.stringContaining('has nothing below') });
  });

  it('may be the first one of the version that package.json has', async () => {
    expect((await release(manifest.version)).code).toBe(0);
    await git('tag', '--list', `v${manifest.version}`);
    expect(await read('CHANGELOG.md')).toContain(`## ${manifest.version} – `);
  });

  it('refuses what is no version, is lower, is there, or is not committed, and writes nothing', async () => {
    const refusal = async (version: string) => {
      const { code, said } = await release(version);
      expect(code).toBe(1);
      return said;
    };
    for (const none of ['1', 'v1.0.0', '1.0.0-rc.1', '01.0.0', '1.0.0; id'])
      expect(await refusal(none)).toContain('usage: ');
    expect(await refusal('0.0.10')).toContain('0.0.10 is lower than');
    await git('tag', 'v8.0.0');
    expect(await refusal('8.0.0')).toContain('v8.0.0 is there already');
    expect(await git('status', '--porcelain')).toBe('');
    await writeFile(path.join(clone, 'new-file'), '');
    expect(await refusal('9.0.0')).toContain('not committed');
    expect(await git('log', '--oneline')).not.toContain('release');
  });
});

it('all that name our images are written by a release, and name this version', async ({ skip }) => {
  const naming = '(bore-platform/(backend|bore-server|borectl):|newTag: |image\\.version=")[0-9][^ "]*';
  const pathspec = ['--', '.', ':!test'];
  const { code, said } = await run('git', ['grep', '-oE', naming, ...pathspec]);
  if (code > 1) return skip('this is no clone: git cannot be asked');
  const lines = said.trim().split('\n');
  expect(new Set(lines.map((line) => line.split(':')[0]))).toEqual(new Set(IMAGES));
  for (const line of lines) expect(line).toMatch(new RegExp(`[:\\s"]${manifest.version}$`));
});

it('borectl says its version', async () => {
  const { code, said } = await run(process.execPath, ['dist/cli/main.js', '--version']);
  expect({ code, said }).toEqual({ code: 0, said: `${manifest.version}\n` });
});
