import { execFile } from 'node:child_process';
import { access } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

import { PROJECT_DIR } from '../../src/local/state-folders.js';

const run = promisify(execFile);

/** The release whose protocol we speak. */
const VERSION = '0.6.0';
/** Built once for a clone. */
const CACHE = path.join(PROJECT_DIR, '.cache', 'bore');
/** A release build with all its dependencies takes a minute or two on two cores. */
const BUILD_TIMEOUT_MS = 600_000;

/** Where the client is, or why there is none. */
export type UpstreamBore = { readonly path: string } | { readonly missing: string };

/** Finds upstream's `bore` 0.6.0: in BORE_BIN, on PATH, or built by cargo into a cache folder. */
export async function findUpstreamBore(): Promise<UpstreamBore> {
  const given = process.env['BORE_BIN'];
  if (given !== undefined) {
    return (await isRightVersion(given)) ? { path: given } : { missing: `BORE_BIN is no bore ${VERSION}` };
  }
  const built = path.join(CACHE, 'bin', 'bore');
  for (const candidate of ['bore', built]) if (await isRightVersion(candidate)) return { path: candidate };
  try {
    await run('cargo', ['--version']);
  } catch {
    return { missing: `there is no bore ${VERSION} in BORE_BIN or on PATH, and no cargo to build it` };
  }
  process.stdout.write(`building upstream's bore ${VERSION} for the interop tests, once for this clone\n`);
  try {
    await run('cargo', ['install', 'bore-cli', '--version', VERSION, '--locked', '--root', CACHE], {
      timeout: BUILD_TIMEOUT_MS,
    });
    await access(built);
    return { path: built };
  } catch (error) {
    const said = error instanceof Error ? (error.message.trim().split('\n').at(-1) ?? '') : String(error);
    return { missing: `cargo could not build bore-cli ${VERSION}: ${said}` };
  }
}

async function isRightVersion(candidate: string): Promise<boolean> {
  try {
    return (await run(candidate, ['--version'])).stdout.includes(VERSION);
  } catch {
    return false; // not there, or not a program
  }
}
