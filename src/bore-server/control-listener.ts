import net, { type Socket } from 'node:net';

import type { Logger } from 'pino';

import { FrameError } from '../protocol/frames.js';
import { ConnectionEnded, FrameConnection } from './frame-connection.js';
import { greet, type Greeting, Refusal, Rejection, Unanswered } from './handshake.js';
import { FAILURE_WINDOW_MS, HANDSHAKE_MS, KEEPALIVE_MS, LAST_WORDS_MS, type Limits, SILENCE_MS } from './limits.js';
import { Handshakes } from './handshakes.js';
import type { Metrics } from './metrics.js';
import type { Networks } from './networks.js';
import { openPort } from './open-port.js';
import { findOrigin, originOf } from './proxied-socket.js';
import { ProxyHeaderError } from './proxy-header.js';
import { FailuresBySource, sourceOf } from './sources.js';

/** What the control port needs of the server. */
export interface ControlListenerContext {
  readonly limits: Limits;
  readonly metrics: Metrics;
  readonly logger: Logger;
  /** Load balancers whose PROXY protocol header is believed. */
  readonly trusted: Networks | undefined;
  /** What becomes of a connection whose greeting was heard, from which address. @throws Refusal */
  onGreeting(greeting: Greeting, address: string, connection: FrameConnection): Promise<void>;
  /** The same for one that another server of our name has handed over. */
  onTakenOver(greeting: Greeting, address: string, connection: FrameConnection): Promise<void>;
  /** Sources that are never banned: their client is a good one, whoever else is behind the same address. */
  hasSessionFrom(source: string): boolean;
}

/** The control port: greets whoever connects, within limits, and hands them on. */
export class ControlListener {
  private readonly server = net.createServer(
    { allowHalfOpen: true, pauseOnConnect: true, noDelay: true },
    (socket) => void this.serve(socket),
  );
  private readonly handshakes = new Handshakes();
  private readonly failures: FailuresBySource;
  private lastTurnedAwayAt = -Infinity;

  constructor(private readonly context: ControlListenerContext) {
    const { limits, logger } = context;
    this.failures = new FailuresBySource(limits.failuresBeforeBan, FAILURE_WINDOW_MS, limits.banSeconds * 1000);
    this.server.on('error', (err) => logger.error({ err }, 'control port failed'));
  }

  /** Connections in their handshake now. */
  get handshakesOpen(): number {
    return this.handshakes.count;
  }

  /** When a connection was last shed because there were too many, by `performance.now()`: a client may have come for a visitor on it. */
  get lastShedAt(): number {
    return Math.max(this.lastTurnedAwayAt, this.handshakes.lastMadeRoomAt);
  }

  /** Resolves with the port. */
  listen(port: number, address: string): Promise<number> {
    return openPort(this.server, port, address);
  }

  /** Takes no more connections and drops those still in their handshake. */
  close(): void {
    this.server.close();
    this.handshakes.destroyAll();
  }

  /** A client that another server of our name has greeted: from here on it is one of ours, and so are its failures. */
  async takeOver(greeting: Greeting, address: string, connection: FrameConnection): Promise<void> {
    const { socket } = connection;
    const { limits } = this.context;
    const source = sourceOf(address);
    if (!this.handshakes.enter(socket, source, limits.maxHandshakes)) return this.shed(socket, 'shed');
    try {
      if (this.isUnwelcome(socket, source)) return;
      await this.context.onTakenOver(greeting, address, connection);
      this.context.metrics.handshakes.inc({ outcome: greeting.message.kind });
    } catch (error) {
      const text = this.lastWords(address, error);
      // an end would have the other server wait for the client's own, who need not send one
      if (text === undefined) return void socket.resetAndDestroy();
      connection.send({ kind: 'error', text });
      connection.detach();
      socket.once('end', () => socket.destroySoon()).resume();
      setTimeout(() => socket.resetAndDestroy(), LAST_WORDS_MS);
    } finally {
      this.handshakes.leave(socket);
    }
  }

  private async serve(socket: Socket): Promise<void> {
    socket.on('error', () => undefined); // 'close' follows, and whoever reads hears of it
    const peer = originOf(socket);
    // reset before it could be asked: nobody is there
    if (!peer) return void socket.destroy();
    const { limits, trusted } = this.context;
    if (!this.handshakes.enter(socket, sourceOf(peer.address), limits.maxHandshakes)) return this.shed(socket, 'shed');
    try {
      const { address } = trusted ? await findOrigin(socket, trusted) : peer;
      const source = sourceOf(address);
      this.handshakes.move(socket, source);
      if (this.isUnwelcome(socket, source)) return;
      await this.handshake(socket, address);
    } catch (error) {
      if (!(error instanceof ProxyHeaderError)) throw error;
      this.context.logger.warn({ err: error, peer: peer.address }, 'a trusted load balancer sent no header');
      this.shed(socket, 'no_header');
    } finally {
      this.handshakes.leave(socket);
    }
  }

  /** Whether its source is banned, or has too many connections in their handshake: it was shed, then. */
  private isUnwelcome(socket: Socket, source: string): boolean {
    const isBanned = this.failures.isBlocked(source) && !this.context.hasSessionFrom(source);
    if (!isBanned && this.handshakes.of(source) <= this.context.limits.maxHandshakesPerSource) return false;
    this.shed(socket, isBanned ? 'banned' : 'shed');
    return true;
  }

  private async handshake(socket: Socket, address: string): Promise<void> {
    const { metrics } = this.context;
    socket.setKeepAlive(true, KEEPALIVE_MS);
    const deadline = setTimeout(() => {
      metrics.handshakes.inc({ outcome: 'timeout' });
      this.countFailure(address);
      socket.destroy();
    }, HANDSHAKE_MS);
    const connection = new FrameConnection(socket);
    const began = performance.now();
    try {
      const greeting = await greet(connection);
      clearTimeout(deadline);
      await this.context.onGreeting(greeting, address, connection);
      metrics.handshakes.inc({ outcome: greeting.message.kind });
    } catch (error) {
      // a probe of a load balancer connects and leaves; who stays silent for long and then leaves holds places of others
      if (error instanceof ConnectionEnded && performance.now() - began > SILENCE_MS) this.countFailure(address);
      const text = this.lastWords(address, error);
      if (text === undefined) return void socket.destroy();
      connection.send({ kind: 'error', text });
      socket.destroySoon();
    } finally {
      clearTimeout(deadline);
    }
  }

  /** What a client is told that is not served; `undefined` when it has gone. */
  private lastWords(address: string, error: unknown): string | undefined {
    const { metrics, logger } = this.context;
    if (error instanceof ConnectionEnded) return undefined;
    if (error instanceof Refusal || error instanceof FrameError) {
      metrics.handshakes.inc({ outcome: outcomeOf(error) });
      logger.info({ clientAddress: address, text: error.message }, 'client refused');
      if (error instanceof Rejection || error instanceof FrameError) this.countFailure(address);
      return error.message;
    }
    metrics.handshakes.inc({ outcome: 'failed' });
    logger.error({ err: error }, 'handshake failed');
    return 'internal server error';
  }

  private countFailure(address: string): void {
    const isBanned = this.failures.add(sourceOf(address));
    if (isBanned) this.context.logger.warn({ clientAddress: address }, 'address banned for failing handshakes');
  }

  private shed(socket: Socket, outcome: 'shed' | 'banned' | 'no_header'): void {
    if (outcome === 'shed') this.lastTurnedAwayAt = performance.now();
    this.context.metrics.handshakes.inc({ outcome });
    socket.resetAndDestroy();
  }
}

/** As metrics count it: who is refused for a fault of ours is no client's mistake. */
function outcomeOf(error: Refusal | FrameError): string {
  if (error instanceof FrameError) return 'invalid';
  return error instanceof Unanswered ? 'failed' : 'refused';
}
