import net, { type Socket } from 'node:net';

import type { Logger } from 'pino';

import { randomUuid } from '../protocol/challenge.js';
import { HandOver, PEER_FRAME_BYTES_MAX, type PeerKey } from '../protocol/peer-link.js';
import { FrameConnection } from './frame-connection.js';
import type { Greeting } from './handshake.js';
import { Handshakes } from './handshakes.js';
import { HANDSHAKE_MS, KEEPALIVE_MS, type Limits } from './limits.js';
import type { Metrics } from './metrics.js';
import { openPort } from './open-port.js';
import { originOf } from './proxied-socket.js';

/** What the peer port needs of the server. */
export interface PeerListenerContext {
  readonly keys: readonly PeerKey[];
  readonly limits: Limits;
  readonly metrics: Metrics;
  readonly logger: Logger;
  /** A client's connection that another server has handed over, after a greeting that it heard. */
  onHandOver(greeting: Greeting, address: string, connection: FrameConnection): Promise<void>;
}

/** Whoever connects has no proof that it is a bore-server of ours. */
class NoPeer extends Error {
  override readonly name = 'NoPeer';
}

/** The peer port: takes over connections that other bore-servers got for our tunnels (src/protocol/peer-link.ts). */
export class PeerListener {
  private readonly server = net.createServer(
    { allowHalfOpen: true, pauseOnConnect: true, noDelay: true },
    (socket) => void this.serve(socket),
  );
  private readonly handshakes = new Handshakes();

  constructor(private readonly context: PeerListenerContext) {
    this.server.on('error', (err) => context.logger.error({ err }, 'peer port failed'));
  }

  /** Resolves with the port. */
  listen(port: number, address: string): Promise<number> {
    return openPort(this.server, port, address);
  }

  /** Takes no more connections and drops those that nobody has handed over yet. */
  close(): void {
    this.server.close();
    this.handshakes.destroyAll();
  }

  private async serve(socket: Socket): Promise<void> {
    socket.on('error', () => undefined); // 'close' follows, and whoever reads hears of it
    const peer = originOf(socket);
    // reset before it could be asked: nobody is there
    if (!peer) return void socket.destroy();
    const { limits, metrics, logger } = this.context;
    if (!this.handshakes.enter(socket, peer.address, limits.maxHandshakes)) return void socket.resetAndDestroy();
    const deadline = setTimeout(() => socket.destroy(), HANDSHAKE_MS);
    const connection = new FrameConnection(socket, PEER_FRAME_BYTES_MAX);
    let handOver: HandOver;
    try {
      handOver = await this.receive(connection);
    } catch (err) {
      metrics.handOvers.inc({ outcome: 'no_peer' });
      logger.warn({ err, peer: peer.address }, 'somebody without a proof connected to the peer port');
      socket.destroy();
      return;
    } finally {
      clearTimeout(deadline);
      this.handshakes.leave(socket);
    }
    metrics.handOvers.inc({ outcome: 'taken' });
    socket.setKeepAlive(true, KEEPALIVE_MS);
    const { address, ...greeting } = handOver;
    await this.context.onHandOver(greeting, address, connection);
  }

  /** @throws NoPeer, FrameError, ConnectionEnded */
  private async receive(connection: FrameConnection): Promise<HandOver> {
    const nonce = randomUuid();
    connection.sendFrame(nonce);
    const text = await connection.next();
    const proof = await connection.next();
    // every key is compared: which one it was is not to be told by the time it takes
    const [key] = this.context.keys.filter((candidate) => candidate.verify(proof, 'forwarder', nonce, text));
    if (!key) throw new NoPeer('the proof is wrong');
    const handOver = HandOver.safeParse(JSON.parse(text));
    if (!handOver.success) throw new NoPeer('the hand-over cannot be read', { cause: handOver.error });
    connection.sendFrame(key.prove('owner', nonce, text));
    return handOver.data;
  }
}
