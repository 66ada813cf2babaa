import { execFile } from 'node:child_process';
import { chmod, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

import { inject } from 'vitest';

import { PROJECT_DIR } from '../../src/local/state-folders.js';
import { ownPort } from './own-ports.js';
import type { OwnPostgres } from './own-postgres.js';
import { RunningProcess } from './running-process.js';

const run = promisify(execFile);

/** Debian keeps the program where only root looks. */
const PATH = `${process.env['PATH']}:/usr/sbin`;

/** Why there is no pgbouncer, or `undefined`. */
export async function pgbouncerUnavailable(): Promise<string | undefined> {
  try {
    await run('pgbouncer', ['--version'], { env: { PATH } });
    return undefined;
  } catch {
    return 'there is no pgbouncer (Debian package pgbouncer)';
  }
}

/** `pgbouncer.ini` of docs/database.md. */
async function documentedSettings(): Promise<string> {
  const page = await readFile(path.join(PROJECT_DIR, 'docs/database.md'), 'utf8');
  const settings = /^```ini\n(?<ini>[^]*?)\n```/m.exec(page)?.groups?.['ini'];
  if (settings === undefined) throw new Error('docs/database.md shows no pgbouncer.ini');
  return settings;
}

/**
 * A pgbouncer in front of a PostgreSQL, configured as documented.
 * @param serverConnections that it may have
 */
export async function startPgbouncer(postgres: OwnPostgres, serverConnections: number) {
  const { host, port, user, password, database } = postgres.address;
  const folder = await mkdtemp(path.join(inject('scratch'), 'pgbouncer-'));
  await chmod(folder, 0o755);
  const listenPort = await ownPort();
  const userList = path.join(folder, 'userlist.txt');
  await writeFile(userList, `"${user}" "${password}"\n`);
  const ini = (await documentedSettings())
    .replace(/^bore_db = host=\S+ port=\S+ dbname=\S+/m, `${database} = host=${host} port=${port} dbname=${database}`)
    .replace(/^listen_addr = .*$/m, 'listen_addr = 127.0.0.1\nunix_socket_dir =')
    .replace(/^listen_port = .*$/m, `listen_port = ${listenPort}`)
    .replace(/^auth_file = .*$/m, `auth_file = ${userList}`)
    .replace(/^default_pool_size = .*$/m, `default_pool_size = ${serverConnections}`);
  const file = path.join(folder, 'pgbouncer.ini');
  await writeFile(file, ini);
  // it does not run as root
  const as = process.getuid?.() === 0 ? ['-u', 'nobody'] : [];
  const pgbouncer = new RunningProcess('pgbouncer', [...as, file], { PATH });
  await pgbouncer.waitFor('process up');
  return { process: pgbouncer, port: listenPort };
}
