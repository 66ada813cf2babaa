import { execFile } from 'node:child_process';
import { cp, mkdir, readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

import { z } from 'zod';

import { newFolder, ROOT } from './packaged.js';

const INSTALLED = path.join(ROOT, '.cache/pm2');
const INSTALL_TIMEOUT_MS = 120_000;
/** A reload waits for drains and starts. */
const COMMAND_TIMEOUT_MS = 240_000;

const Processes = z.array(
  z.object({
    pid: z.number(),
    name: z.string(),
    pm2_env: z.object({
      status: z.string(),
      exec_mode: z.string(),
      restart_time: z.number(),
      unstable_restarts: z.number(),
      exit_code: z.number().nullish(),
    }),
  }),
);

/** Installs PM2 in the cache of this clone, from a lock file of its own. @returns why it is not to be had, or `undefined` */
export async function pm2Unavailable(): Promise<string | undefined> {
  const lock = 'node_modules/.package-lock.json';
  const wanted = await readFile(path.join(ROOT, 'test/deploy/pm2/package-lock.json'), 'utf8');
  const marker = path.join(INSTALLED, 'package-lock.json');
  const present = await Promise.all([readFile(marker, 'utf8'), readFile(path.join(INSTALLED, lock))]).catch(() => []);
  if (present[0] === wanted) return undefined;
  await mkdir(INSTALLED, { recursive: true });
  await cp(path.join(ROOT, 'test/deploy/pm2'), INSTALLED, { recursive: true });
  try {
    const quiet = ['--no-audit', '--no-fund', '--ignore-scripts', '--fetch-retries=1'];
    await promisify(execFile)('npm', ['ci', ...quiet], { cwd: INSTALLED, timeout: INSTALL_TIMEOUT_MS });
    return undefined;
  } catch {
    return 'PM2 could not be installed: is the registry reachable?';
  }
}

/** A PM2 with a daemon and a folder of its own. */
export class OwnPm2 {
  private constructor(
    /** Where it keeps what it knows, and logs. */
    readonly home: string,
    private readonly env: NodeJS.ProcessEnv,
  ) {}

  static async start(env: NodeJS.ProcessEnv): Promise<OwnPm2> {
    const home = await newFolder('pm2-');
    return new OwnPm2(home, {
      PATH: process.env['PATH'],
      HOME: home,
      PM2_HOME: home,
      PM2_DISABLE_VERSION_CHECK: 'true',
      ...env,
    });
  }

  /** @throws Error with what PM2 said, when it fails */
  async run(args: readonly string[], cwd = ROOT): Promise<string> {
    const command = [path.join(INSTALLED, 'node_modules/pm2/bin/pm2'), ...args];
    const { stdout } = await promisify(execFile)(process.execPath, command, {
      cwd,
      env: this.env,
      timeout: COMMAND_TIMEOUT_MS,
    });
    return stdout;
  }

  async processes(): Promise<z.output<typeof Processes>> {
    const text = await this.run(['jlist', '--silent']);
    return Processes.parse(JSON.parse(text.slice(text.indexOf('['))));
  }

  /** Everything that the processes of a program have said. */
  async log(name: string): Promise<string> {
    const folder = path.join(this.home, 'logs');
    const files = (await readdir(folder)).filter((file) => file.startsWith(`${name}-`));
    return (await Promise.all(files.map((file) => readFile(path.join(folder, file), 'utf8')))).join('');
  }

  /** Ends what it runs, and its daemon. */
  async kill(): Promise<void> {
    await this.run(['kill']);
  }
}
