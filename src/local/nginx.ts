/** nginx with the files of deploy/nginx, at the addresses of a machine's own. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

import { StartError } from './start-settings.js';
import { PROJECT_DIR } from './state-folders.js';

const run = promisify(execFile);

/** Answers in milliseconds. */
const ASK_TIMEOUT_MS = 5_000;
/** More than twice the ports and connections of a cluster on one machine. */
const CONNECTIONS_MAX = 4096;

/** An installed nginx that passes TCP on. */
export interface NginxInstallation {
  /** It is started with this PATH: Debian keeps the program where only root looks. */
  readonly path: string;
  /** Line of nginx.conf, where the module is a file of its own. */
  readonly loadStream: string;
}

/** @throws StartError that says what to install */
export async function findNginx(searchPath: string | undefined): Promise<NginxInstallation> {
  const PATH = `${searchPath ?? ''}:/usr/sbin:/usr/local/sbin`;
  const asked = await run('nginx', ['-V'], { env: { PATH }, timeout: ASK_TIMEOUT_MS }).catch(() => undefined);
  if (!asked) throw new StartError('nginx is not installed: apt-get install nginx libnginx-mod-stream');
  const { stderr: built } = asked;
  if (/--with-stream(\s|$)/.test(built)) return { path: PATH, loadStream: '' };
  const modules = /--modules-path=(\S+)/.exec(built)?.[1];
  const missing = 'nginx has no stream module, which passes TCP on: apt-get install libnginx-mod-stream';
  if (!built.includes('--with-stream=dynamic') || modules === undefined) throw new StartError(missing);
  const file = path.join(modules, 'ngx_stream_module.so');
  if (!existsSync(file)) throw new StartError(missing);
  return { path: PATH, loadStream: `load_module ${file};` };
}

/** Where nginx listens and what is behind it. */
export interface NginxPlace {
  /** Made when it is missing. Everything that nginx writes is there. */
  readonly folder: string;
  /** Where it listens, and from where it connects. */
  readonly address: string;
  readonly controlPort: number;
  /** For 10.0.0.11, 10.0.0.12 and 10.0.0.13. */
  readonly servers: readonly {
    readonly address: string;
    readonly portRange: { readonly min: number; readonly max: number };
  }[];
  /** Without: only TCP is passed on. */
  readonly api?: ApiPlace;
}

/** The API's port, of nginx and of each backend; and how many requests a second an address may make, if not as shipped. */
interface ApiPlace {
  readonly port: number;
  readonly requestsPerSecond?: number | undefined;
}

/** Writes its configuration, and returns the command that runs it in the foreground. */
export async function nginxCommand(
  { loadStream }: NginxInstallation,
  place: NginxPlace,
): Promise<[program: string, ...args: string[]]> {
  const { folder, api } = place;
  await mkdir(folder, { recursive: true });
  await writeFile(path.join(folder, 'stream.conf'), streamConf(await shipped('stream.conf'), place));
  if (api) await writeFile(path.join(folder, 'api.conf'), apiConf(await shipped('api.conf'), place, api));
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  const http = `http {
      access_log off;
      ${temporary.map((kind) => `${kind}_temp_path ${folder}/${kind};`).join(' ')}
      include ${folder}/api.conf;
    }`;
  const conf = path.join(folder, 'nginx.conf');
  await writeFile(
    conf,
    `${loadStream}
    daemon off; worker_processes 2; worker_rlimit_nofile ${CONNECTIONS_MAX * 2};
    pid ${folder}/nginx.pid; error_log stderr notice;
    events { worker_connections ${CONNECTIONS_MAX}; }
    include ${folder}/stream.conf;
    ${api ? http : ''}
    `,
  );
  return ['nginx', '-e', 'stderr', '-p', folder, '-c', conf];
}

function shipped(name: string): Promise<string> {
  return readFile(path.join(PROJECT_DIR, 'deploy/nginx', name), 'utf8');
}

function streamConf(text: string, { address, controlPort, servers }: NginxPlace): string {
  return servers
    .reduce((conf, server, i) => {
      const [min, max] = [10_000 + i * 100, 10_099 + i * 100];
      return conf
        .replaceAll(`10.0.0.${11 + i}:`, `${server.address}:`)
        .replace(`listen ${min}-${max}`, `listen ${server.portRange.min}-${server.portRange.max}`);
    }, text)
    .replaceAll(/\b7835\b/g, String(controlPort))
    .replaceAll('listen ', `listen ${address}:`)
    .replace('stream {', `stream {\n  proxy_bind ${address};`);
}

function apiConf(text: string, { address, servers }: NginxPlace, { port, requestsPerSecond }: ApiPlace): string {
  return servers
    .reduce((conf, server, i) => conf.replaceAll(`10.0.0.${11 + i}:3000`, `${server.address}:${port}`), text)
    .replace(/^ {2}listen 80;$/m, `  listen ${address}:${port};\n  proxy_bind ${address};`)
    .replace('allow 10.0.0.0/8;', `allow 127.0.0.1; allow ${address};`)
    .replace('rate=100r/s', requestsPerSecond === undefined ? '$&' : `rate=${requestsPerSecond}r/s`);
}
