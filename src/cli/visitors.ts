import { once } from 'node:events';
import net, { type Socket } from 'node:net';

import { Stream } from '../relay/stream.js';
import { LINGER_MS, LOCAL_CONNECT_MS, NOTICE_REPEAT_MS, VISITORS_MAX } from './limits.js';
import { networkReason } from './network-error.js';
import { type ServerAddress, ServerConnection } from './server-connection.js';
import { OccasionalNotice } from './terminal.js';

/** Where the visitors are to end up. */
export interface LocalAddress {
  readonly host: string;
  readonly port: number;
}

/** Brings the tunnel's visitors to the local service, each on a connection of its own to the server. */
export class Visitors {
  private count = 0;
  private readonly full = new OccasionalNotice(NOTICE_REPEAT_MS);
  private readonly refused = new OccasionalNotice(NOTICE_REPEAT_MS);
  private readonly lost = new OccasionalNotice(NOTICE_REPEAT_MS);

  constructor(
    private readonly local: LocalAddress,
    private readonly key: Buffer,
    /** Ends everything when the program stops. */
    private readonly signal: AbortSignal,
  ) {}

  /** Fetches the visitor that the server has announced, and carries it until it ends. Never throws. */
  async fetch(server: ServerAddress, id: string): Promise<void> {
    if (this.count >= VISITORS_MAX) {
      // not fetched, the server sends it away
      this.full.say(`More than ${VISITORS_MAX} visitors at once: a visitor was not let in.`);
      return;
    }
    this.count++;
    try {
      await this.carry(server, id);
    } finally {
      this.count--;
    }
  }

  private async carry(server: ServerAddress, id: string): Promise<void> {
    // both at once: the visitor waits for the slower of the two only
    const [fetched, connected] = await Promise.allSettled([
      ServerConnection.open(server, this.key, { kind: 'accept', id }, this.signal),
      connectLocally(this.local),
    ]);
    if (fetched.status === 'rejected') {
      if (connected.status === 'fulfilled') connected.value.resetAndDestroy();
      if (!this.signal.aborted) this.lost.say(`A visitor could not be fetched: ${networkReason(fetched.reason)}.`);
      return;
    }
    const { socket: visitor, first } = fetched.value.detach();
    if (connected.status === 'rejected') {
      const { host, port } = this.local;
      this.refused.say(`A visitor was turned away: ${host}:${port}: ${networkReason(connected.reason)}.`);
      // closed, not reset: with its Accept just sent, a reset would reach some servers as an end anyway
      visitor.on('error', () => undefined).destroySoon();
      return;
    }
    const local = connected.value;
    if (visitor.destroyed || local.destroyed) {
      visitor.on('error', () => undefined).resetAndDestroy();
      local.resetAndDestroy();
      return;
    }
    await new Promise((resolve) => {
      // the far end is the visitor, and its client we are
      new Stream({
        client: visitor,
        visitor: local,
        first,
        preface: undefined,
        throttle: () => 0,
        idleMs: 0,
        lingerMs: LINGER_MS,
        count: () => undefined,
        onEnd: resolve,
      });
    });
  }
}

/** The socket comes paused: what the local service says first waits for the visitor. */
async function connectLocally({ host, port }: LocalAddress): Promise<Socket> {
  const socket = net.connect({ host, port, allowHalfOpen: true, noDelay: true }).pause();
  socket.on('error', () => undefined); // 'close' follows, and whoever waits hears of it
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(LOCAL_CONNECT_MS) });
    return socket;
  } catch (error) {
    socket.destroy();
    // `once` says AbortError; what has happened is that nobody answered
    throw error instanceof Error && error.name === 'AbortError' ? new Error('no answer', { cause: error }) : error;
  }
}
