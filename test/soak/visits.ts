/** What visitors do in the soak test, each on a connection of its own. */
import { once } from 'node:events';
import net, { type Socket } from 'node:net';

import { isText, textAt } from '../harness/known-text.js';

const PIECE_BYTES = 64 * 1024;
/** No visit is silent for so long. */
const SILENCE_MS = 30_000;
/** A slow reader does not read for so long, after it has heard the first of the answer. */
const SLOW_MS = 1_000;

/** A visit, by what is special about it. */
export type Kind = 'exchange' | 'bulk' | 'slow reader' | 'visitor resets' | 'visitor closes early' | 'service resets';

export const COMMANDS = { echo: 'e'.charCodeAt(0), break: 'b'.charCodeAt(0) };

/** Where visitors go, and from which address they come. */
export interface Door {
  readonly host: string;
  readonly port: number;
  readonly from: string;
}

/** Bytes of a visit that were checked, both ways. */
export interface Visited {
  readonly bytes: number;
}

/**
 * Sends `bytes` of the known text behind a command, finishes, and hears all of it again.
 * @throws Error when a byte is wrong or missing, or nothing comes any more
 */
export async function visit(kind: Kind, door: Door, bytes: number): Promise<Visited> {
  const { host, port, from: localAddress } = door;
  const socket = net.connect({ host, port, localAddress, allowHalfOpen: true });
  socket.on('error', () => undefined);
  try {
    await once(socket, 'connect');
    const ear = new Ear(socket, kind);
    if (kind === 'visitor resets' || kind === 'visitor closes early') {
      // in the middle of sending, and of hearing
      void say(socket, COMMANDS.echo, bytes);
      await ear.first;
      if (kind === 'visitor resets') socket.resetAndDestroy();
      else socket.destroy();
      return ear.visited(undefined);
    }
    await Promise.all([say(socket, kind === 'service resets' ? COMMANDS.break : COMMANDS.echo, bytes), ear.over]);
    return ear.visited(kind === 'service resets' ? undefined : bytes + 1);
  } finally {
    socket.destroy();
  }
}

async function say(socket: Socket, command: number, bytes: number): Promise<void> {
  socket.write(Buffer.of(command));
  for (let sent = 0; sent < bytes && socket.writable;) {
    const piece = textAt(sent, Math.min(PIECE_BYTES, bytes - sent));
    sent += piece.length;
    await new Promise<void>((resolve) => socket.write(piece, () => resolve()));
  }
  socket.end();
}

/** Hears the echo and checks it. */
class Ear {
  private heard = 0;
  private intact = true;
  private ended = false;

  private silent = false;
  /** Resolves with the first byte, or when it is over. */
  readonly first: Promise<void>;
  /** Resolves when the service has finished, or all is broken. */
  readonly over: Promise<void>;

  constructor(
    private readonly socket: Socket,
    private readonly kind: Kind,
  ) {
    socket.setTimeout(SILENCE_MS, () => {
      this.silent = true;
      socket.destroy();
    });
    socket.on('data', (chunk: Buffer) => {
      // the first byte is the command
      const text = this.heard === 0 ? chunk.subarray(1) : chunk;
      if (!isText(text, Math.max(0, this.heard - 1))) this.intact = false;
      if (this.heard === 0 && kind === 'slow reader') this.rest();
      this.heard += chunk.length;
    });
    socket.on('end', () => (this.ended = true));
    this.over = new Promise((resolve) => socket.once('end', resolve).once('close', () => resolve()));
    this.first = new Promise((resolve) => socket.once('data', () => resolve()).once('close', () => resolve()));
  }

  /** @param expected bytes that must have come; `undefined`: any beginning will do */
  visited(expected: number | undefined): Visited {
    const story = `${this.kind}: ${this.heard} of ${expected ?? 'some'} bytes, ${this.ended ? 'finished' : 'broken'}`;
    if (this.silent) throw new Error(`silence: ${story}`);
    if (!this.intact) throw new Error(`wrong bytes: ${story}`);
    if (expected !== undefined && (this.heard !== expected || !this.ended)) throw new Error(`not whole: ${story}`);
    return { bytes: 2 * this.heard };
  }

  private rest(): void {
    this.socket.pause();
    setTimeout(() => this.socket.resume(), SLOW_MS);
  }
}
