import { once } from 'node:events';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';

import type { Logger } from 'pino';
import { z } from 'zod';

import { PeerDirectory } from '../protocol/peers.js';
import { Sealer, SealError } from '../protocol/sealing.js';
import { KeptGrant } from './grants.js';
import { UsageBookState } from './usage-book.js';

/** What outlives the process. */
const State = z.object({
  version: z.literal(1),
  grants: z.array(KeptGrant),
  book: UsageBookState,
  peers: PeerDirectory.optional(),
});
type State = z.infer<typeof State>;

/** Changes come in bursts; one write for all within this. It is also what a kill -9 may cost. */
const SAVE_DELAY_MS = 500;

/**
 * What a bore-server must not forget, in one file: grants and the servers of its name, for starting without a control
 * plane (G2), and usage that is not in the books yet (G4). It holds tunnels' keys, so it is sealed under the internal key, and readable by its owner
 * only. Replaced as a whole, so that it is never half of anything.
 */
export class StateFile {
  private readonly sealer: Sealer;
  private readonly file: string;
  private timer: NodeJS.Timeout | undefined;
  private saving: Promise<void> = Promise.resolve();
  private failing = false;

  /**
   * @param read what to keep
   * @param onFailure called for each save that failed
   */
  constructor(
    folder: string,
    private readonly serverId: string,
    apiKeys: readonly string[],
    private readonly logger: Logger,
    private readonly read: () => Omit<State, 'version'>,
    private readonly onFailure: () => void,
  ) {
    this.sealer = new Sealer(apiKeys, 'bore-server state');
    this.file = path.join(folder, `bore-server.${serverId}.state`);
  }

  /**
   * Takes the file for this process; false when another process has it. Two that wrote one book of account would count
   * things twice. The lock is a local socket: it ends with its process, however that ends.
   */
  async lock(): Promise<boolean> {
    const lock = `${this.file}.lock`;
    await mkdir(path.dirname(this.file), { recursive: true, mode: 0o700 });
    const server = net.createServer((socket) => socket.destroy()).unref();
    try {
      await once(server.listen(lock), 'listening');
      return true;
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EADDRINUSE')) throw error;
    }
    const owner = net.connect(lock);
    try {
      await once(owner, 'connect');
      return false;
    } catch {
      // nobody listens: it was left by a process that was killed
      await rm(lock, { force: true });
      await once(server.listen(lock), 'listening');
      return true;
    } finally {
      owner.destroy();
    }
  }

  /** What was kept; `undefined` when there is nothing, or nothing that can be read. */
  async load(): Promise<State | undefined> {
    try {
      const sealed = await readFile(this.file);
      return State.parse(JSON.parse(this.sealer.open(sealed, this.serverId).toString()));
    } catch (err) {
      if (err instanceof Error && 'code' in err && err.code === 'ENOENT') return undefined;
      const reason = err instanceof SealError ? 'it was sealed under another key' : 'it cannot be read';
      this.logger.warn({ err, file: this.file }, `the state file is left out: ${reason}`);
      return undefined;
    }
  }

  /** Something has changed: it is kept soon. */
  saveSoon(): void {
    this.timer ??= setTimeout(() => void this.save(), SAVE_DELAY_MS);
  }

  /**
   * Keeps what is now. A failure is logged and counted, and the server goes on: it is the one in memory that counts. What was
   * kept before is then removed, which a full disk allows: usage in it may be reported from now on, and would be again.
   */
  save(): Promise<void> {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.saving = this.saving.then(() => this.write());
    return this.saving;
  }

  private async write(): Promise<void> {
    const sealed = this.sealer.seal(Buffer.from(JSON.stringify({ version: 1, ...this.read() })), this.serverId);
    const next = `${this.file}.next`;
    try {
      await mkdir(path.dirname(this.file), { recursive: true, mode: 0o700 });
      await writeFile(next, sealed, { mode: 0o600 });
      await rename(next, this.file);
      if (this.failing) this.logger.info({ file: this.file }, 'the state file can be written again');
      this.failing = false;
    } catch (err) {
      this.onFailure();
      this.logger[this.failing ? 'debug' : 'error']({ err, file: this.file }, 'the state file cannot be written');
      this.failing = true;
      for (const file of [next, this.file])
        await rm(file, { force: true }).catch((error: unknown) => this.logger.debug({ err: error }, 'left behind'));
    }
  }
}
