import { randomBytes } from 'node:crypto';
import { chmod, mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import path from 'node:path';

import { z } from 'zod';

import { Failure } from './failure.js';
import { withFileLock } from './file-lock.js';
import { CREDENTIALS_BYTES_MAX } from './limits.js';

/** A login at one platform. */
export const Credentials = z.object({
  userId: z.string(),
  email: z.string(),
  accessToken: z.string(),
  /** Good for one refresh. */
  refreshToken: z.string(),
});
export type Credentials = z.infer<typeof Credentials>;

/** By the platform's URL. */
const CredentialsFile = z.object({ platforms: z.record(z.string(), Credentials) });
type CredentialsFile = z.infer<typeof CredentialsFile>;

/** The logins of this user, in a file that only they can read. */
export class CredentialsStore {
  private readonly folder: string;
  private readonly file: string;

  /** @param environment for `XDG_CONFIG_HOME` (XDG Base Directory Specification: a relative path is to be ignored) */
  constructor(environment: NodeJS.ProcessEnv) {
    const configured = environment['XDG_CONFIG_HOME'] ?? '';
    this.folder = path.join(path.isAbsolute(configured) ? configured : path.join(homedir(), '.config'), 'borectl');
    this.file = path.join(this.folder, 'credentials.json');
  }

  /** The login at a platform, if there is one. */
  async find(url: string): Promise<Credentials | undefined> {
    return (await this.read()).platforms[url];
  }

  /**
   * Replaces the login at a platform by what `change` makes of it (`undefined`: removes it). No other borectl changes
   * the file meanwhile, so that a refresh token is spent once.
   */
  async update(
    url: string,
    change: (current: Credentials | undefined) => Promise<Credentials | undefined>,
  ): Promise<Credentials | undefined> {
    await mkdir(this.folder, { recursive: true, mode: 0o700 });
    await chmod(this.folder, 0o700);
    return withFileLock(`${this.file}.lock`, async () => {
      const current = (await this.read()).platforms[url];
      const next = await change(current);
      if (next === current) return next;
      // read again: should the lock have been broken, the logins at other platforms are not undone
      const { [url]: _replaced, ...others } = (await this.read()).platforms;
      await this.write({ platforms: next ? { ...others, [url]: next } : others });
      return next;
    });
  }

  private async read(): Promise<CredentialsFile> {
    try {
      if ((await stat(this.file)).size > CREDENTIALS_BYTES_MAX) throw new Error('it is too large');
      return CredentialsFile.parse(JSON.parse(await readFile(this.file, 'utf8')));
    } catch (cause) {
      if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return { platforms: {} };
      if (cause instanceof Error && 'code' in cause) {
        throw new Failure(`${this.file} cannot be read (${String(cause.code)}).`, 1, { cause });
      }
      throw new Failure(`${this.file} is damaged: remove it and log in again.`, 1, { cause });
    }
  }

  /** Whole or not at all: a reader sees the old file or the new one. */
  private async write(content: CredentialsFile): Promise<void> {
    const draft = `${this.file}.${randomBytes(6).toString('hex')}`;
    try {
      const handle = await open(draft, 'wx', 0o600);
      try {
        await handle.writeFile(`${JSON.stringify(content, null, 2)}\n`);
        // the old refresh token is spent: what replaces it must survive a power cut
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(draft, this.file);
    } catch (error) {
      await rm(draft, { force: true });
      throw error;
    }
  }
}
