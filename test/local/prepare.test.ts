import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { removeFolder, temporaryFolder } from './launcher.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

let folder: string;

beforeAll(async () => {
  folder = await temporaryFolder();
});

afterAll(() => removeFolder(folder));

/** A clone with one source file, and the project's own packages or none. */
function newClone(name: string, { packages }: { packages: boolean }): string {
  const clone = path.join(folder, name);
  mkdirSync(path.join(clone, 'src/platform/database'), { recursive: true });
  for (const entry of ['package.json', 'package-lock.json', 'tsconfig.json', 'prisma.config.ts', 'prisma', 'scripts'])
    cpSync(path.join(ROOT, entry), path.join(clone, entry), { recursive: true });
  if (packages) symlinkSync(path.join(ROOT, 'node_modules'), path.join(clone, 'node_modules'));
  writeFileSync(path.join(clone, 'src/main.ts'), 'export const one: number = 1;\n');
  return clone;
}

function prepare(clone: string, nodeArgs: string[] = [], env: NodeJS.ProcessEnv = {}) {
  const run = spawnSync(process.execPath, [...nodeArgs, path.join(clone, 'scripts/prepare.mjs')], {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...env },
    timeout: 60_000,
  });
  return { code: run.status, said: run.stdout + run.stderr };
}

describe('scripts/prepare.mjs', () => {
  it('says which Node is needed', () => {
    const oldNode = `data:text/javascript,Object.defineProperty(process,'version',{value:'v20.18.3'})`;
    expect(prepare(newClone('old-node', { packages: false }), ['--import', oldNode])).toEqual({
      code: 1,
      said: 'Node.js 20.19 or newer is needed, and this is v20.18.3: see https://nodejs.org/en/download\n',
    });
  });

  it('says that the registry cannot be reached', () => {
    const { code, said } = prepare(newClone('offline', { packages: false }), [], {
      npm_config_registry: 'http://127.0.0.1:1',
      npm_config_cache: path.join(folder, 'empty-cache'),
      npm_config_fetch_retries: '0',
    });
    expect(code).toBe(1);
    expect(said).toMatch(/^Installing packages.*\nnpm ci failed: the package registry cannot be reached.*\n$/);
  });

  it('compiles what is new, shows what does not compile, and has nothing to do when nothing changed', () => {
    const clone = newClone('compiles', { packages: true });
    expect(prepare(clone)).toEqual({ code: 0, said: 'Compiling …\n' });
    expect(prepare(clone)).toEqual({ code: 0, said: '' });

    writeFileSync(path.join(clone, 'src/main.ts'), `export const one: number = 'one';\n`);
    for (const round of [1, 2]) {
      const { code, said } = prepare(clone);
      expect(code, `round ${round}`).toBe(1);
      expect(said).toContain('src/main.ts(1,14): error TS2322');
    }
    writeFileSync(path.join(clone, 'src/main.ts'), 'export const one: number = 2;\n');
    expect(prepare(clone)).toEqual({ code: 0, said: 'Compiling …\n' });
  });

  it('gives up the lock of a preparation that was killed', () => {
    const clone = newClone('killed', { packages: true });
    mkdirSync(path.join(clone, 'dist'));
    // more than Linux gives out
    writeFileSync(path.join(clone, 'dist/.preparing'), '99999999');
    expect(prepare(clone).code).toBe(0);
  });
});
