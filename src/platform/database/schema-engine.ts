/**
 * Loads Prisma's schema engine by hand: the package imports its `.wasm` as an ES module, which Node runs only with an
 * experimental flag.
 */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';

import * as engine from '@prisma/schema-engine-wasm/schema_engine_bg';

/** The part of the WebAssembly API that is used; Node's types leave it to the browser's. */
declare const WebAssembly: {
  instantiate(bytes: Uint8Array, imports: object): Promise<{ instance: { exports: Record<string, unknown> } }>;
};

let loaded: Promise<typeof engine> | undefined;

/** The engine's module, compiled once for the process. */
export function loadSchemaEngine(): Promise<typeof engine> {
  loaded ??= instantiate();
  return loaded;
}

async function instantiate(): Promise<typeof engine> {
  const folder = path.dirname(createRequire(import.meta.url).resolve('@prisma/schema-engine-wasm'));
  const bytes = await readFile(path.join(folder, 'schema_engine_bg.wasm'));
  const { instance } = await WebAssembly.instantiate(bytes, { './schema_engine_bg.js': { ...engine } });
  if (!('__wbg_set_wasm' in engine) || typeof engine.__wbg_set_wasm !== 'function') {
    throw new Error('@prisma/schema-engine-wasm cannot be loaded: it is not of the version that we know');
  }
  engine.__wbg_set_wasm(instance.exports);
  const start = instance.exports['__wbindgen_start'];
  if (typeof start === 'function') start();
  return engine;
}
