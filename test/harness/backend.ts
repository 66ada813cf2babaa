import { fileURLToPath } from 'node:url';

import { ownPort } from './own-ports.js';
import { RunningProcess } from './running-process.js';
import type { TestDatabase } from './database.js';
import { scanLog } from './secret-scan.js';

const MAIN = fileURLToPath(new URL('../../dist/main.js', import.meta.url));

/** Of test installations only. */
export const SECRETS = {
  JWT_SECRET: 'jwt-0123456789abcdef0123456789abcdef',
  INTERNAL_API_KEY: 'internal-0123456789abcdef0123456789abcdef',
  TUNNEL_KEY_SECRET: 'tunnel-0123456789abcdef0123456789abcdef',
};

/** A suite's callers all come from one address, and ask as fast as they can. */
export const NO_LIMITS = {
  RATE_LIMIT_PER_MINUTE: '1000000',
  RATE_LIMIT_LOGINS_PER_MINUTE: '1000000',
  RATE_LIMIT_SIGNUPS_PER_HOUR: '1000000',
  LOGIN_FAILURES_PER_MINUTE: '1000000',
};

interface BackendOptions {
  readonly database: TestDatabase;
  readonly env?: NodeJS.ProcessEnv;
  /** The process is expected to end instead of becoming ready. */
  readonly expectFailure?: boolean;
  /** Another build's `main.js`; default: that of `dist`. */
  readonly main?: string;
}

/** A backend process that listens on a port of its own. */
export class Backend extends RunningProcess {
  url = '';

  protected override checkOutput(): void {
    scanLog(this.output());
  }
}

/** Starts `dist/main.js` and resolves when it accepts requests. */
export async function startBackend({
  database,
  env,
  expectFailure = false,
  main = MAIN,
}: BackendOptions): Promise<Backend> {
  const { host, port, database: name, user, password } = database.address;
  const backend = new Backend(process.execPath, [main], {
    PATH: process.env['PATH'],
    HOST: '127.0.0.1',
    PORT: String(await ownPort()),
    DB_HOST: host,
    DB_PORT: String(port),
    DB_NAME: name,
    DB_USER: user,
    DB_PASSWORD: password,
    ...SECRETS,
    ...NO_LIMITS,
    // most suites have no Redis, and several backends that share nothing but their database
    ALLOW_INSTANCES_WITHOUT_REDIS: 'true',
    // no load balancer is in front
    SHUTDOWN_DRAIN_SECONDS: '0',
    ...env,
  });
  if (expectFailure) return backend;
  const output = await backend.waitFor('"msg":"listening"').catch(async (error: unknown) => {
    await backend.kill9();
    throw error;
  });
  backend.url = `http://127.0.0.1:${/"port":(\d+),"msg":"listening"/.exec(output)?.[1]}`;
  return backend;
}
