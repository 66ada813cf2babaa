import net from 'node:net';

import type { Logger } from 'pino';

import { randomUuid } from '../protocol/challenge.js';
import { type HandOver, PEER_FRAME_BYTES_MAX, type PeerKey } from '../protocol/peer-link.js';
import type { Peer } from '../protocol/peers.js';
import { Stream } from '../relay/stream.js';
import { ConnectionEnded, FrameConnection } from './frame-connection.js';
import { type Greeting, Refusal } from './handshake.js';
import { FAREWELL_MS, HAND_OVER_MS, KEEPALIVE_MS, type Limits } from './limits.js';
import type { Metrics } from './metrics.js';
import { Quiet } from './quiet.js';

/** What the forwarder needs of the server. */
export interface ForwarderContext {
  /** The first of the rotation list. */
  readonly key: PeerKey;
  readonly limits: Limits;
  readonly metrics: Metrics;
  readonly logger: Logger;
}

type Kind = Greeting['message']['kind'];

/** Hands connections of other servers' clients over to their owners, and copies their bytes (src/protocol/peer-link.ts). */
export class Forwarder {
  /** Connections that run, and those that are being handed over. */
  private readonly running = new Map<Stream, Kind>();
  private dialling = 0;
  private isStopping = false;
  private readonly quiet = new Quiet(() => ![...this.running.values()].includes('accept'));

  constructor(private readonly context: ForwarderContext) {
    context.metrics.observeForwarded(() => this.running.size);
  }

  /**
   * Hands a connection over. A client that said Hello is told of an owner that cannot be reached within {@link HAND_OVER_MS}.
   * @throws Refusal, ConnectionEnded
   */
  async forward(greeting: Greeting, address: string, connection: FrameConnection, owner: Peer): Promise<void> {
    const { message } = greeting;
    try {
      if (this.isStopping && message.kind === 'hello') throw new Refusal('server is stopping');
      if (this.running.size + this.dialling >= this.context.limits.maxForwarded)
        throw new Refusal('server is full, try again');
      const leg = await this.reach(owner, { ...greeting, address, nonce: randomUuid() });
      // it left while the owner was asked: its end has been heard, and would be heard by nobody again
      if (connection.socket.destroyed) {
        leg.socket.resetAndDestroy();
        throw new ConnectionEnded('the client left');
      }
      this.copy(connection, leg, message.kind);
    } catch (error) {
      if (message.kind === 'hello' || error instanceof ConnectionEnded) throw error;
      // what we said would be taken for the visitor's bytes, and an end for theirs
      connection.socket.resetAndDestroy();
      throw new ConnectionEnded('the visitor cannot be reached', { cause: error });
    }
  }

  /** Takes no more clients of others, and waits until the visitors' streams have ended, or for `graceMs`. Control connections would stay for ever. */
  async drain(graceMs: number): Promise<void> {
    this.isStopping = true;
    await this.quiet.within(graceMs);
  }

  /** Breaks every connection. */
  stop(): void {
    for (const stream of this.running.keys()) stream.drop('drain');
  }

  /** @throws Refusal */
  private async reach(owner: Peer, handOver: HandOver): Promise<FrameConnection> {
    this.dialling++;
    const { waitingSeconds } = this.context.limits;
    const patienceMs = handOver.message.kind === 'hello' ? HAND_OVER_MS : waitingSeconds * 1000;
    const { host, port, serverId } = owner;
    const socket = net.connect({
      host,
      port,
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEPALIVE_MS,
    });
    let failure: Error | undefined;
    socket.on('error', (error) => (failure ??= error)); // 'close' follows
    const deadline = setTimeout(() => socket.destroy(new Error('it did not answer in time')), patienceMs);
    const leg = new FrameConnection(socket, PEER_FRAME_BYTES_MAX);
    try {
      const nonce = await leg.next();
      const text = JSON.stringify(handOver);
      leg.sendFrame(text);
      leg.sendFrame(this.context.key.prove('forwarder', nonce, text));
      if (!this.context.key.verify(await leg.next(), 'owner', nonce, text))
        throw new Error('it has no proof of being ours');
      return leg;
    } catch (error) {
      socket.destroy();
      const err = failure ?? error;
      this.context.metrics.handOvers.inc({ outcome: 'owner_unreachable' });
      this.context.logger.warn(
        { err, owner: serverId, host, port },
        'a connection could not be handed over to its owner',
      );
      throw new Refusal('the server of this tunnel cannot be reached now, try again', { cause: err });
    } finally {
      clearTimeout(deadline);
      this.dialling--;
    }
  }

  private copy(client: FrameConnection, owner: FrameConnection, kind: Kind): void {
    const { limits, metrics } = this.context;
    const said = owner.detach();
    const stream = new Stream({
      client: client.socket,
      visitor: owner.socket,
      first: client.detach(),
      preface: said.length > 0 ? said : undefined,
      // limits and idle times are the owner's
      throttle: () => 0,
      idleMs: 0,
      // after an owner's last word nothing is to come on a control connection
      lingerMs: kind === 'hello' ? FAREWELL_MS : limits.lingerSeconds * 1000,
      count: (_, bytes) => metrics.forwardedBytes.inc(bytes),
      onEnd: () => {
        this.running.delete(stream);
        this.quiet.check();
      },
    });
    this.running.set(stream, kind);
    metrics.handOvers.inc({ outcome: 'forwarded' });
  }
}
