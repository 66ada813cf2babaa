import { chmod, mkdtemp } from 'node:fs/promises';
import path from 'node:path';

import { inject } from 'vitest';

import { findNginx, nginxCommand, type NginxPlace } from '../../src/local/nginx.js';
import { RunningProcess } from './running-process.js';

/** Why there is no nginx that passes TCP on, or `undefined`. */
export function nginxUnavailable(): Promise<string | undefined> {
  return findNginx(process.env['PATH']).then(
    () => undefined,
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  );
}

/** An nginx of the test's own in the foreground, with the files of `deploy/nginx` on loopback addresses. */
export async function startNginx(place: Omit<NginxPlace, 'folder'>): Promise<RunningProcess> {
  const installation = await findNginx(process.env['PATH']);
  const folder = await mkdtemp(path.join(inject('scratch'), 'nginx-'));
  // as root, its workers run as another user, and keep large bodies there
  await chmod(folder, 0o755);
  const [program, ...args] = await nginxCommand(installation, { ...place, folder });
  const nginx = new RunningProcess(program, args, { PATH: installation.path });
  await nginx.waitFor('start worker process ');
  return nginx;
}
