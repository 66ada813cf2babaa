import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, symlink } from 'node:fs/promises';
import path from 'node:path';

import { asOrdinaryUser, newFolder, USER } from './packaged.js';
import type { UnitFile } from './unit-file.js';

/** Why no machine can be shown as if the platform were installed on it, or `undefined`. */
export function namespacesUnavailable(): string | undefined {
  if (process.getuid?.() !== 0) return 'mount namespaces need root';
  const { status } = spawnSync('unshare', ['--mount', 'mount', '--bind', '/', '/']);
  return status === 0 ? undefined : 'mount namespaces are not available here';
}

/**
 * Shell lines that show this machine, to one process, as docs/systemd.md leaves it; nothing of it is really changed.
 * @param programs folders of `npm run package`
 */
export async function installation(programs: { readonly backend: string; readonly server: string }): Promise<string> {
  const shown = await newFolder('installed-');
  await mkdir(path.join(shown, 'opt/bore-platform'), { recursive: true });
  await mkdir(path.join(shown, 'bin'));
  await symlink(programs.backend, path.join(shown, 'opt/bore-platform/backend'));
  await symlink(programs.server, path.join(shown, 'opt/bore-platform/bore-server'));
  await symlink('/opt/bore-platform/bore-server/dist/bore-server/main.js', path.join(shown, 'bin/bore-server'));
  return [
    'set -e',
    // two folders seen as one, of which none can be written
    `mount -t overlay overlay -o lowerdir=${shown}/opt:/opt /opt`,
    `mount -t overlay overlay -o lowerdir=${shown}/bin:/usr/local/bin /usr/local/bin`,
    'mount -t tmpfs -o mode=0755 tmpfs /var/lib',
    `install -d -m 700 -o ${USER.uid} -g ${USER.gid} /var/lib/bore`,
    'mount -t proc -o subset=pid,hidepid=invisible proc /proc',
  ].join('\n');
}

/**
 * Runs a command where the platform is installed.
 * @param writable with it, the machine is read-only but for this folder
 */
export function whereInstalled(shell: string, command: readonly string[], writable?: string): [string, string[]] {
  const bound = writable === undefined ? '' : `mount --bind ${writable} ${writable}\nmount -o remount,ro,bind /\n`;
  return ['unshare', ['--mount', 'sh', '-c', `${shell}\n${bound}exec "$@"`, 'sh', ...command]];
}

/**
 * What systemd would run of a unit: as its user, in its folder, with its limits, with nothing but its environment.
 * @param settings what stands in the file of EnvironmentFile=
 */
export function commandOf(
  unit: UnitFile,
  instance: string,
  settings: NodeJS.ProcessEnv,
): [command: string[], env: NodeJS.ProcessEnv] {
  const environment = unit.all('Environment').map((line): [string, string] => {
    const [name = '', ...value] = line.split('=');
    return [name, value.join('=')];
  });
  const limits = unit.all('LimitNOFILE').map((limit) => `--nofile=${descriptorsHere(Number(limit))}`);
  const command = [
    ...(limits.length > 0 ? ['prlimit', ...limits] : []),
    ...asOrdinaryUser(),
    'env',
    '-C',
    unit.one('WorkingDirectory'),
    ...unit.one('ExecStart').replaceAll('%i', instance).split(/\s+/),
  ];
  // systemd's own PATH for services
  const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
  return [command, { PATH, ...Object.fromEntries(environment), ...settings }];
}

/** A limit as high as this machine lets us have it. */
export function descriptorsHere(limit: number): number {
  const hard = /^Max open files\s+\d+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
  return Math.min(limit, Number(hard ?? limit));
}
