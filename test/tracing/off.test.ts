import { mkdtemp, readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';

import { Api } from '../harness/api.js';
import { Platform } from '../harness/platform.js';
import { Collector } from './collector.js';

/**
 * Writes down every module that a process asks for, however: ESM's resolution passes the hooks, what CommonJS has loaded is in its
 * cache at the end.
 */
const RECORDER = `
import { appendFileSync } from 'node:fs';
import Module, { register } from 'node:module';

const file = process.env.MODULES_FOLDER + '/' + process.pid;
const hooks = \`import { appendFileSync } from 'node:fs';
export async function resolve(specifier, context, next) {
  const found = await next(specifier, context);
  appendFileSync(\${JSON.stringify(file)}, found.url + '\\\\n');
  return found;
}\`;
register('data:text/javascript,' + encodeURIComponent(hooks));
process.on('exit', () => appendFileSync(file, Object.keys(Module._cache).join('\\n') + '\\n'));
`;

/** The SDK, its exporters, and our part that loads them. */
const SDK = /@opentelemetry\/(?!api\/)|otlp-pipeline/;

/** Modules of the SDK that a platform with these variables has loaded when it has done some work, of both of its programs. */
async function sdkModules(address: string, env: NodeJS.ProcessEnv): Promise<{ all: number; sdk: string[] }[]> {
  const folder = await mkdtemp(path.join(inject('scratch'), 'modules-'));
  const recorder = path.join(folder, 'recorder.mjs');
  await writeFile(recorder, RECORDER);
  const recorded = { ...env, MODULES_FOLDER: folder, NODE_OPTIONS: `--import ${pathToFileURL(recorder).href}` };
  const platform = await Platform.start({
    address,
    ports: { min: 20_200, max: 20_210 },
    env: recorded,
    serverEnv: recorded,
  });
  const user = await platform.newUser();
  const { id } = await platform.open(user);
  await user.delete(`/api/v1/tunnels/${id}`);
  await new Api(platform.server.adminUrl).get('/ready');
  await platform.stop();
  const files = (await readdir(folder)).filter((name) => /^\d+$/.test(name));
  return Promise.all(
    files.map(async (name) => {
      const modules = (await readFile(path.join(folder, name), 'utf8')).split('\n');
      return { all: modules.length, sdk: modules.filter((module) => SDK.test(module)) };
    }),
  );
}

// programs are started and stopped
describe('what is loaded', () => {
  let collector: Collector;
  beforeAll(async () => {
    collector = await Collector.start();
  });
  afterAll(() => collector.stop());

  test('off: nothing of the SDK, in either program', async () => {
    const programs = await sdkModules('127.0.81.3', {});
    expect(programs).toHaveLength(2);
    for (const { all, sdk } of programs) {
      expect(all).toBeGreaterThan(50);
      expect(sdk).toEqual([]);
    }
  });

  test('on: the same look finds it, in both', async () => {
    const programs = await sdkModules('127.0.81.4', collector.env);
    expect(programs).toHaveLength(2);
    for (const { sdk } of programs) {
      expect(sdk.some((module) => module.includes('@opentelemetry/sdk-trace'))).toBe(true);
      expect(sdk.some((module) => module.includes('otlp-pipeline'))).toBe(true);
    }
  });
});
