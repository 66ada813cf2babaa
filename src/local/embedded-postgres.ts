/**
 * A real PostgreSQL for one machine, from binaries that npm installs: no system package, no Docker.
 *
 * PostgreSQL refuses to run as root. As root it therefore runs as the user `postgres`, or `nobody` where there is none,
 * from a copy of the binaries in a place that this user can reach: a clone below a home of mode 0700 is not.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chown, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';

import { diesWithUs } from './dies-with-us.js';
import { installBinaries, PostgresStartError } from './postgres-binaries.js';
import { commandLineOf } from './processes.js';

/** The first start after a crash replays the log; on a slow disk that takes a while. */
const READY_TIMEOUT_MS = 60_000;
/** A fast shutdown writes one checkpoint. */
const STOP_TIMEOUT_MS = 20_000;
/** How the folders begin that a cluster is made in. */
const HALF_MADE = 'initdb-';
/** A replica says `read-only connections`. */
const READY_LINE = /database system is ready to accept (read-only )?connections/;

export interface EmbeddedPostgresOptions {
  /** Folder for the cluster's files; made when it is missing. */
  readonly dataDir: string;
  /** Folder that the binaries are copied to; may be shared by many clusters. */
  readonly binariesHome: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  /** `name=value` pairs for `postgres -c`. */
  readonly settings?: readonly string[];
  readonly onLine?: (line: string) => void;
  /** Gives up starting. */
  readonly signal?: AbortSignal;
  /** Ends it when we are gone, where the system can do that. Otherwise the next start does. */
  readonly diesWithUs?: boolean;
}

/** A running cluster. Whoever starts it must stop it. */
export interface EmbeddedPostgres {
  readonly process: ChildProcess;
  /** Fast shutdown; resolves when the process is gone. */
  stop(): Promise<void>;
}

/** Whom PostgreSQL runs as, and who owns its files. */
export interface RunAs {
  readonly uid?: number;
  readonly gid?: number;
}

/** Starts the cluster, making it first when there is none, and resolves when it takes connections. */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const runAs = unprivilegedUser();
  const { bin, major } = await installBinaries(options.binariesHome);
  await initialise(options, bin, runAs);
  await checkVersion(options.dataDir, major);
  await stopLeftover(options.dataDir);
  const settings = [
    'listen_addresses=127.0.0.1',
    'unix_socket_directories=',
    'logging_collector=off',
    ...(options.settings ?? []),
  ];
  const place = ['-D', options.dataDir, '-p', String(options.port)];
  const postgres: [string, ...string[]] = [
    path.join(bin, 'postgres'),
    ...place,
    ...settings.flatMap((setting) => ['-c', setting]),
  ];
  const [program, ...args] = options.diesWithUs ? diesWithUs('INT', postgres) : postgres;
  const child = spawn(
    program,
    args,
    // a process group of its own: Ctrl-C on the terminal is for us, and we stop the database last
    { ...runAs, cwd: '/', env: childEnvironment(), stdio: ['ignore', 'ignore', 'pipe'], detached: true },
  );
  const lines: string[] = [];
  await new Promise<void>((resolve, reject) => {
    const fail = (reason: string): void => {
      clearTimeout(timer);
      reject(new PostgresStartError(`PostgreSQL did not start: ${reason}`));
    };
    const timer = setTimeout(() => fail(`not ready after ${READY_TIMEOUT_MS / 1000} s`), READY_TIMEOUT_MS);
    child.once('error', (error) => fail(error.message));
    // `close`, not `exit`: its last words must have been read
    child.once('close', () => fail(reasonIn(lines)));
    options.signal?.addEventListener('abort', () => fail('it was told to stop'), { once: true });
    if (options.signal?.aborted) fail('it was told to stop');
    createInterface({ input: child.stderr }).on('line', (line) => {
      options.onLine?.(line);
      if (lines.push(line) > 20) lines.shift();
      if (!READY_LINE.test(line)) return;
      clearTimeout(timer);
      resolve();
    });
  }).catch(async (error: unknown) => {
    await stop(child);
    throw error;
  });
  return { process: child, stop: () => stop(child) };
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGINT');
  const timer = setTimeout(() => child.kill('SIGQUIT'), STOP_TIMEOUT_MS);
  await gone;
  clearTimeout(timer);
}

/** Makes a new cluster beside its place and moves it there when it is whole, so that a half-made one is never used. */
async function initialise(
  { dataDir, user, password }: EmbeddedPostgresOptions,
  bin: string,
  runAs: RunAs,
): Promise<void> {
  if (existsSync(path.join(dataDir, 'PG_VERSION'))) return;
  const parent = path.dirname(dataDir);
  await mkdir(parent, { recursive: true });
  await removeHalfMade(parent);
  const work = await mkdtemp(path.join(parent, HALF_MADE));
  try {
    const passwordFile = path.join(work, 'password');
    await writeFile(passwordFile, password, { mode: 0o600 });
    if (runAs.uid !== undefined && runAs.gid !== undefined) {
      await chown(work, runAs.uid, runAs.gid);
      await chown(passwordFile, runAs.uid, runAs.gid);
    }
    const cluster = path.join(work, 'cluster');
    const child = spawn(
      path.join(bin, 'initdb'),
      [
        '-D',
        cluster,
        '-U',
        user,
        `--pwfile=${passwordFile}`,
        '-A',
        'scram-sha-256',
        '--encoding=UTF8',
        '--locale=C',
        '--no-instructions',
      ],
      { ...runAs, cwd: '/', env: childEnvironment(), stdio: ['ignore', 'pipe', 'pipe'] },
    );
    const lines: string[] = [];
    for (const input of [child.stdout, child.stderr]) createInterface({ input }).on('line', (line) => lines.push(line));
    const [code] = await once(child, 'close');
    if (code !== 0) throw new PostgresStartError(`A database could not be made in ${parent}: ${reasonIn(lines)}`);
    await rename(cluster, dataDir);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** What a start that was killed left. Nobody else works in this folder: whoever starts a cluster owns its parent. */
async function removeHalfMade(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    if (name.startsWith(HALF_MADE)) await rm(path.join(parent, name), { recursive: true, force: true });
  }
}

/** A cluster is of one major version, and only that reads it. */
async function checkVersion(dataDir: string, major: string): Promise<void> {
  const found = (await readFile(path.join(dataDir, 'PG_VERSION'), 'utf8')).trim();
  if (found === major) return;
  throw new PostgresStartError(
    `The data in ${dataDir} is of PostgreSQL ${found}, and this is PostgreSQL ${major}: use the release of bore-platform that wrote it, or move the folder away to begin anew`,
  );
}

/** A launcher that was killed leaves its PostgreSQL running on our files: end it before another is started. */
export async function stopLeftover(dataDir: string): Promise<void> {
  const file = path.join(dataDir, 'postmaster.pid');
  if (!existsSync(file)) return;
  const pid = Number.parseInt(await readFile(file, 'utf8'), 10);
  if (!Number.isInteger(pid) || !commandLineOf(pid).includes(dataDir)) return;
  process.kill(pid, 'SIGINT');
  const deadline = performance.now() + STOP_TIMEOUT_MS;
  while (commandLineOf(pid).includes(dataDir)) {
    if (performance.now() > deadline)
      throw new PostgresStartError(`PostgreSQL (process ${pid}) of an earlier start does not end`);
    // it is not our child: there is no event to wait for
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** As root: another user, who then owns the files. Else nobody in particular: whoever runs this. */
export function unprivilegedUser(): RunAs {
  if (process.getuid?.() !== 0) return {};
  for (const name of ['postgres', 'nobody']) {
    try {
      const id = (flag: string) =>
        Number(execFileSync('id', [flag, name], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }));
      return { uid: id('-u'), gid: id('-g') };
    } catch {
      continue; // no such user
    }
  }
  throw new PostgresStartError('PostgreSQL does not run as root, and there is no user postgres or nobody to run it as');
}

/** Only what PostgreSQL needs: the launcher's environment holds secrets. */
function childEnvironment(): NodeJS.ProcessEnv {
  return { PATH: process.env['PATH'], LC_ALL: 'C', TZ: 'UTC' };
}

function reasonIn(lines: readonly string[]): string {
  if (lines.some((line) => line.includes('No space left on device'))) return 'the disk is full';
  const failure = lines.find((line) => /(FATAL|PANIC|error):/.test(line)) ?? lines.at(-1);
  return failure?.replace(/^.*?(FATAL|PANIC|error):\s*/, '') ?? 'it said nothing';
}
