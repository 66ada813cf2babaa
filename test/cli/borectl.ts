import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { z } from 'zod';

import { RunningProcess } from '../harness/running-process.js';

export const BORECTL = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
export const PASSWORD = 'correct horse battery';

/** A command that is not done after this long hangs. */
const COMMAND_TIMEOUT_MS = 30_000;

const CredentialsFile = z.object({
  platforms: z.record(
    z.string(),
    z.looseObject({ accessToken: z.string(), refreshToken: z.string(), email: z.string() }),
  ),
});
type CredentialsFile = z.infer<typeof CredentialsFile>;

interface Result {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A `borectl open` that runs. */
export class OpenTunnel extends RunningProcess {
  host = '';
  port = 0;
}

/** A person with a home of their own, at a terminal of a machine with borectl. */
export class Person {
  private readonly started: OpenTunnel[] = [];
  /** What they have set in their shell. */
  readonly shell: NodeJS.ProcessEnv = {};

  private constructor(
    readonly api: string,
    readonly home: string,
  ) {}

  static async at(api: string): Promise<Person> {
    return new Person(api, await mkdtemp(path.join(tmpdir(), 'borectl-test-')));
  }

  get credentialsFile(): string {
    return path.join(this.home, 'borectl', 'credentials.json');
  }

  async credentials(): Promise<CredentialsFile> {
    return CredentialsFile.parse(JSON.parse(await readFile(this.credentialsFile, 'utf8')));
  }

  /** As when the access token has expired: the platform does not take it any more. */
  async expireAccessToken(): Promise<void> {
    const file = await this.credentials();
    for (const login of Object.values(file.platforms)) login.accessToken = `${login.accessToken}x`;
    await writeFile(this.credentialsFile, JSON.stringify(file));
  }

  /** Runs a command to its end. `input` comes from a pipe; without, the password comes from the environment. */
  async run(
    args: readonly string[],
    { input, env }: { input?: string; env?: NodeJS.ProcessEnv } = {},
  ): Promise<Result> {
    const child = spawn(process.execPath, [BORECTL, ...args], {
      env: { ...this.env(), ...(input === undefined && { BORE_PASSWORD: PASSWORD }), ...env },
      timeout: COMMAND_TIMEOUT_MS,
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.stdin.on('error', () => undefined).end(input ?? '');
    await once(child, 'close');
    return { code: child.exitCode, stdout, stderr };
  }

  /** Starts `borectl open` and resolves when it has said the public address. */
  async open(localPort: number, ...flags: string[]): Promise<OpenTunnel> {
    const client = this.start('open', String(localPort), ...flags);
    const output = await client.waitFor(/Public address: .*\n/);
    const [, host, port] = /Public address: (.*):(\d+)\n/.exec(output) ?? [];
    return Object.assign(client, { host: host ?? '', port: Number(port) });
  }

  start(...args: string[]): OpenTunnel {
    const client = new OpenTunnel(process.execPath, [BORECTL, ...args], this.env());
    this.started.push(client);
    return client;
  }

  /** Ends what a failed test has left running, too. */
  async leave(): Promise<void> {
    for (const client of this.started) await client.kill9();
    await rm(this.home, { recursive: true, force: true });
  }

  private env(): NodeJS.ProcessEnv {
    return { PATH: process.env['PATH'], XDG_CONFIG_HOME: this.home, BORE_API: this.api, ...this.shell };
  }
}
