import { execFile } from 'node:child_process';
import { access, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

import { inject } from 'vitest';

import { PROJECT_DIR } from '../../src/local/state-folders.js';
import { RunningProcess } from './running-process.js';

const run = promisify(execFile);

/** Debian keeps the program where only root looks. */
const PATH = `${process.env['PATH']}:/usr/sbin`;
/** Where Debian keeps the module that passes TCP on. */
const STREAM_MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so';

/** Why there is no nginx that passes TCP on, or `undefined`. */
export async function nginxUnavailable(): Promise<string | undefined> {
  try {
    await run('nginx', ['-v'], { env: { PATH } });
    await access(STREAM_MODULE);
    return undefined;
  } catch {
    return 'there is no nginx with its stream module (Debian packages nginx and libnginx-mod-stream)';
  }
}

/** An nginx of the test's own in the foreground, with `deploy/nginx/stream.conf` on loopback addresses. */
export async function startNginx({
  address,
  servers,
}: {
  /** Where it listens, and from where it connects. */
  readonly address: string;
  /** For 10.0.0.11, 10.0.0.12 and so on. */
  readonly servers: readonly string[];
}): Promise<RunningProcess> {
  const shipped = await readFile(path.join(PROJECT_DIR, 'deploy/nginx/stream.conf'), 'utf8');
  const stream = servers
    .reduce((text, server, i) => text.replaceAll(`10.0.0.${11 + i}:`, `${server}:`), shipped)
    .replaceAll('listen ', `listen ${address}:`)
    .replace('stream {', `stream {\n  proxy_bind ${address};`);
  const folder = await mkdtemp(path.join(inject('scratch'), 'nginx-'));
  await writeFile(path.join(folder, 'stream.conf'), stream);
  const conf = path.join(folder, 'nginx.conf');
  await writeFile(
    conf,
    `load_module ${STREAM_MODULE};
     daemon off; worker_processes 1; worker_rlimit_nofile 8192; pid ${folder}/nginx.pid; error_log stderr notice;
     events { worker_connections 4096; }
     include ${folder}/stream.conf;`,
  );
  const nginx = new RunningProcess('nginx', ['-e', 'stderr', '-p', folder, '-c', conf], { PATH });
  await nginx.waitFor('start worker process ');
  return nginx;
}
