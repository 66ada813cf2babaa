import { once } from 'node:events';
import net, { type Socket } from 'node:net';

import type { Logger } from 'pino';

import { FrameError } from '../protocol/frames.js';
import { ConnectionEnded, FrameConnection } from './frame-connection.js';
import { greet, type Greeting, Refusal } from './handshake.js';
import { ACCEPT_BACKLOG, HANDSHAKE_MS, HANDSHAKES_MAX, HANDSHAKES_PER_SOURCE_MAX, KEEPALIVE_MS } from './limits.js';
import type { Metrics } from './metrics.js';

/** What becomes of a connection whose greeting was heard. @throws Refusal */
export type OnGreeting = (greeting: Greeting, connection: FrameConnection) => Promise<void>;

/** The control port: greets whoever connects, within limits, and hands them on. */
export class ControlListener {
  private readonly server = net.createServer(
    { allowHalfOpen: true, pauseOnConnect: true, noDelay: true },
    (socket) => void this.serve(socket),
  );
  private readonly handshakes = new Set<Socket>();
  private readonly bySource = new Map<string, number>();

  constructor(
    private readonly metrics: Metrics,
    private readonly logger: Logger,
    private readonly onGreeting: OnGreeting,
  ) {
    this.server.on('error', (err) => this.logger.error({ err }, 'control port failed'));
  }

  /** Resolves with the port. */
  async listen(port: number, address: string): Promise<number> {
    this.server.listen({ port, host: address, exclusive: true, backlog: ACCEPT_BACKLOG });
    await once(this.server, 'listening');
    const bound = this.server.address();
    return typeof bound === 'object' && bound !== null ? bound.port : port;
  }

  /** Takes no more connections and drops those still in their handshake. */
  close(): void {
    this.server.close();
    for (const socket of this.handshakes) socket.destroy();
  }

  private async serve(socket: Socket): Promise<void> {
    const source = socket.remoteAddress ?? '';
    if (!this.enter(socket, source)) {
      this.metrics.handshakes.inc({ outcome: 'shed' });
      socket.resetAndDestroy();
      return;
    }
    socket.on('error', () => undefined); // 'close' follows, and whoever reads hears of it
    socket.setKeepAlive(true, KEEPALIVE_MS);
    const deadline = setTimeout(() => {
      this.metrics.handshakes.inc({ outcome: 'timeout' });
      socket.destroy();
    }, HANDSHAKE_MS);
    const connection = new FrameConnection(socket);
    try {
      const greeting = await greet(connection);
      clearTimeout(deadline);
      await this.onGreeting(greeting, connection);
      this.metrics.handshakes.inc({ outcome: greeting.message.kind });
    } catch (error) {
      this.refuse(connection, error);
    } finally {
      clearTimeout(deadline);
      this.leave(socket, source);
    }
  }

  private refuse(connection: FrameConnection, error: unknown): void {
    const { socket } = connection;
    if (error instanceof ConnectionEnded) {
      socket.destroy();
      return;
    }
    if (error instanceof Refusal || error instanceof FrameError) {
      this.metrics.handshakes.inc({ outcome: error instanceof Refusal ? 'refused' : 'invalid' });
      this.logger.info({ clientAddress: socket.remoteAddress, text: error.message }, 'client refused');
      connection.send({ kind: 'error', text: error.message });
    } else {
      this.metrics.handshakes.inc({ outcome: 'failed' });
      this.logger.error({ err: error }, 'handshake failed');
      connection.send({ kind: 'error', text: 'internal server error' });
    }
    socket.destroySoon();
  }

  private enter(socket: Socket, source: string): boolean {
    const fromSource = this.bySource.get(source) ?? 0;
    if (this.handshakes.size >= HANDSHAKES_MAX || fromSource >= HANDSHAKES_PER_SOURCE_MAX) return false;
    this.handshakes.add(socket);
    this.bySource.set(source, fromSource + 1);
    return true;
  }

  private leave(socket: Socket, source: string): void {
    this.handshakes.delete(socket);
    const left = (this.bySource.get(source) ?? 1) - 1;
    if (left === 0) this.bySource.delete(source);
    else this.bySource.set(source, left);
  }
}
