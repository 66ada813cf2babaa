import { fileURLToPath } from 'node:url';

import type { DatabaseAddress } from '../../src/platform/database/migrations.js';
import { RunningProcess } from '../harness/running-process.js';
import { systemPostgresBin } from '../harness/system-postgres.js';

const MAIN = fileURLToPath(new URL('../../dist/backup/main.js', import.meta.url));

/** Starts `npm run backup` and its siblings, without npm. */
export function startBackupCommand(
  args: readonly string[],
  address: DatabaseAddress,
  env: NodeJS.ProcessEnv = {},
): RunningProcess {
  const bin = systemPostgresBin();
  return new RunningProcess(process.execPath, [MAIN, ...args], {
    PATH: process.env['PATH'],
    DB_HOST: address.host,
    DB_PORT: String(address.port),
    DB_NAME: address.database,
    DB_USER: address.user,
    DB_PASSWORD: address.password,
    ...(bin !== undefined && { PG_BIN_DIR: bin }),
    ...env,
  });
}

/** Runs it to its end. */
export async function backupCommand(
  args: readonly string[],
  address: DatabaseAddress,
  env: NodeJS.ProcessEnv = {},
): Promise<{ code: number | null; output: string }> {
  const command = startBackupCommand(args, address, env);
  const code = await command.exitCode();
  return { code, output: command.output().trim() };
}
