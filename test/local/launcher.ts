import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseEnv } from 'node:util';
import { fileURLToPath } from 'node:url';

import { isPortTaken } from '../../src/local/free-port.js';
import { CONTROL_PORT } from '../../src/protocol/frames.js';
import { ownPort } from '../harness/own-ports.js';
import { scanFiles } from '../harness/secret-scan.js';
import { until } from '../harness/until.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const START = path.join(ROOT, 'dist/local/start.js');

/** A first start makes a database cluster; two cores, and other suites beside this one. */
const READY_TIMEOUT_MS = 60_000;
/** Programs without a launcher have 25 s to end. */
const GONE_TIMEOUT_MS = 30_000;

/** Ports of one launcher's own, so that suites may run beside each other and beside a developer's `npm start`. */
export interface Ports {
  /** Address that they are bound to. */
  readonly host: string;
  readonly api: number;
  readonly control: number;
  readonly admin: number;
  readonly tunnels: { readonly min: number; readonly max: number };
}

/** @param host an address of the loopback network of the suite's own has the port that stock clients know free */
export async function freePorts(host = '127.0.0.1'): Promise<Ports> {
  const api = await ownPort(13, host);
  const control = host === '127.0.0.1' ? api + 1 : CONTROL_PORT;
  return { host, api, control, admin: api + 2, tunnels: { min: api + 3, max: api + 12 } };
}

/** A folder that PostgreSQL's user can reach too, also as root. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'bore-start-'));
  await chmod(folder, 0o755);
  return folder;
}

/** The environment of a launcher with a state folder and ports of its own. */
export function launcherEnvironment(stateDir: string, ports: Ports): NodeJS.ProcessEnv {
  return {
    PATH: process.env['PATH'],
    HOME: process.env['HOME'],
    BORE_STATE_DIR: stateDir,
    BORE_LOCAL_BIND: ports.host,
    PORT: String(ports.api),
    BORE_CONTROL_PORT: String(ports.control),
    BORE_ADMIN_PORT: String(ports.admin),
    BORE_PORT_RANGE: `${ports.tunnels.min}:${ports.tunnels.max}`,
  };
}

/** `npm start` under test, in a process group of its own, as a terminal would run it. */
export class Launcher {
  readonly child: ChildProcess;
  private text = '';
  private readonly ended: Promise<number | null>;

  /** @param command default: the launcher itself, without npm */
  constructor(
    env: NodeJS.ProcessEnv,
    command: readonly string[] = [process.execPath, START],
    cwd = ROOT,
    private readonly stateDir = env['BORE_STATE_DIR'] ?? '',
  ) {
    const [program = '', ...args] = command;
    const child = spawn(program, args, { cwd, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (chunk: string) => (this.text += chunk));
    this.ended = new Promise((resolve) => child.once('close', resolve));
    this.child = child;
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error('the launcher did not start');
    return this.child.pid;
  }

  /** What it has printed. */
  output(): string {
    return this.text;
  }

  /** Resolves when it says that everything runs. */
  async ready(): Promise<string> {
    await this.says('bore-platform runs.');
    return this.text;
  }

  async says(text: string): Promise<void> {
    const found = () => {
      if (this.text.includes(text)) return true;
      if (this.child.exitCode !== null) throw new Error(`it ended without saying ${text}:\n${this.text}`);
      return false;
    };
    await until(found, `the launcher says ${text}`, READY_TIMEOUT_MS).catch((cause: unknown) => {
      throw new Error(this.text, { cause });
    });
  }

  /** To the whole process group, as Ctrl-C on a terminal. */
  signalGroup(signal: NodeJS.Signals): void {
    process.kill(-this.pid, signal);
  }

  exitCode(): Promise<number | null> {
    return this.ended;
  }

  /** For clean-up: in order where it still can. Fails when its logs hold a secret (G7). */
  async stop(): Promise<void> {
    this.child.kill('SIGTERM');
    await this.ended;
    const logs = path.join(this.stateDir, 'logs');
    if (!existsSync(logs)) return;
    const secrets = parseEnv(await readFile(path.join(this.stateDir, 'secrets.env'), 'utf8').catch(() => ''));
    // the database's port is among them, and no secret
    await scanFiles(
      logs,
      Object.values(secrets).flatMap((text) => (text && text.length >= 12 ? [text] : [])),
    );
  }
}

/** Resolves when nothing listens any more on any port of a launcher, its database's included. */
export async function nothingListens(stateDir: string, ports: Ports): Promise<void> {
  const secrets = await readFile(path.join(stateDir, 'secrets.env'), 'utf8').catch(() => '');
  const database = Number(parseEnv(secrets)['DB_PORT'] ?? 0);
  const { host, api, control, admin, tunnels } = ports;
  const taken = async (port: number) => (await isPortTaken(port, host)) || (await isPortTaken(port, '127.0.0.1'));
  for (const port of [api, admin, tunnels.min, tunnels.max, database])
    await until(async () => !(await taken(port)), `port ${port} is free`, GONE_TIMEOUT_MS);
  await until(async () => !(await isPortTaken(control, host)), `port ${control} is free`, GONE_TIMEOUT_MS);
}

export async function removeFolder(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true });
}
