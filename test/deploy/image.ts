import { execFile } from 'node:child_process';
import { chmod, chown, cp, mkdir } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

import { type Dockerfile, isSent, stepsOf } from './dockerfile.js';
import { asOrdinaryUser, ROOT } from './packaged.js';

/** `npm ci` and the compiler on a machine that may be busy. */
const RUN_TIMEOUT_MS = 580_000;

/** Does what Docker would do for a stage, in a folder that stands for its root, and returns that folder. */
export async function buildStage(dockerfile: Dockerfile, name: string, folder: string): Promise<string> {
  const root = path.join(folder, name);
  let workdir = '/';
  for (const { keyword, text, args, flags } of stepsOf(dockerfile, name)) {
    const inside = (place: string) => path.join(root, path.resolve(workdir, place));
    if (keyword === 'WORKDIR') {
      workdir = path.resolve(workdir, text);
      await mkdir(inside('.'), { recursive: true });
    } else if (keyword === 'RUN') {
      // with npm's cache of this user, so that it fetches little
      const { PATH, HOME } = process.env;
      const env = { PATH, HOME, npm_config_prefer_offline: 'true' };
      // beside it other tests wait for what is quick
      await promisify(execFile)('nice', ['-n', '19', 'sh', '-c', text], {
        cwd: inside('.'),
        env,
        timeout: RUN_TIMEOUT_MS,
      });
    } else if (keyword === 'COPY') {
      const from = flags['from'];
      const to = args.at(-1) ?? '';
      for (const each of args.slice(0, -1)) {
        if (from !== undefined) {
          await mkdir(inside(to), { recursive: true });
          await promisify(execFile)('cp', ['-r', `${path.join(folder, from, each)}/.`, inside(to)]);
          continue;
        }
        // into a folder, or as it
        const target = to.endsWith('/') ? `${to}${path.basename(each)}` : to;
        const filter = (file: string) => isSent(path.relative(ROOT, file));
        await cp(path.join(ROOT, each), inside(target), { recursive: true, filter });
      }
      if (flags['chown']) {
        const [uid, gid] = flags['chown'].split(':').map(Number);
        if (process.getuid?.() === 0) await chown(inside(to), uid ?? 0, gid ?? 0);
      }
    }
  }
  await chmod(root, 0o755);
  return root;
}

/**
 * The command line that runs a program as a container would: as process 1, as the image's user, in its folder, on a read-only machine.
 * @param writable a volume
 */
export function contained(folder: string, command: readonly string[], writable?: string): [string, string[]] {
  const shell = [
    'set -e',
    ...(writable === undefined ? [] : [`mount --bind ${writable} ${writable}`]),
    'mount -o remount,ro,bind /',
    'exec "$@"',
  ].join('\n');
  const namespaces = ['--mount', '--pid', '--fork', '--mount-proc', '--kill-child'];
  return ['unshare', [...namespaces, 'sh', '-c', shell, 'sh', ...asOrdinaryUser(), 'env', '-C', folder, ...command]];
}
