import { readFileSync } from 'node:fs';

import { z } from 'zod';

/** Beside `dist` as beside `src`. */
const PACKAGE = new URL('../../package.json', import.meta.url);

/** The version of this build; `unknown` where `dist` was copied without its package.json. */
export function buildVersion(): string {
  try {
    return z.object({ version: z.string() }).parse(JSON.parse(readFileSync(PACKAGE, 'utf8'))).version;
  } catch {
    return 'unknown'; // nothing depends on it but a label
  }
}
