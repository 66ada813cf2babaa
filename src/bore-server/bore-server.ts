import type { Logger } from 'pino';

import { verifyAnswer } from '../protocol/challenge.js';
import type { HeartbeatRequest, HeartbeatResponse, SessionEndReason, SessionRef } from '../protocol/plane-api.js';
import type { Authorizer } from './authorizer.js';
import { ConnectionEnded, type FrameConnection } from './frame-connection.js';
import { type Greeting, Refusal } from './handshake.js';
import { CLOSED_TUNNELS_MAX } from './limits.js';
import type { Metrics } from './metrics.js';
import { PublicPort } from './public-port.js';
import { TunnelSession } from './tunnel-session.js';
import { Visitors } from './visitors.js';

/** The data plane itself: which sessions there are, and what a client's greeting leads to. */
export class BoreServer {
  /** By tunnel, and the ports they hold. At most one of each for every public port. */
  private readonly sessions = new Map<string, TunnelSession>();
  private readonly ports = new Map<number, TunnelSession>();
  private readonly visitors: Visitors;
  /** When tunnels were closed by order, in the time of `performance.now()`. */
  private readonly closedAt = new Map<string, number>();
  private lastLoad = { at: performance.now(), bytes: 0 };

  /** @param onSessionEnd called for each session that had begun, once */
  constructor(
    private readonly bindTunnels: string,
    metrics: Metrics,
    private readonly logger: Logger,
    private readonly onSessionEnd: (ref: SessionRef & { reason: SessionEndReason }) => void,
  ) {
    this.visitors = new Visitors(metrics);
    metrics.observe(() => ({
      connections: this.visitors.count,
      tunnels: this.sessions.size,
      bytes: this.visitors.bytes,
    }));
  }

  /** @throws Refusal */
  async onGreeting(
    { challenge, tag, message }: Greeting,
    connection: FrameConnection,
    authorizer: Authorizer,
  ): Promise<void> {
    if (message.kind === 'accept') return this.accept(message.id, challenge, tag, connection);
    return this.hello({ port: message.port, challenge, tag }, connection, authorizer);
  }

  isPortTaken(port: number): boolean {
    return this.ports.has(port);
  }

  /** Ends whatever carries a tunnel; false when nothing does. */
  closeTunnel(tunnelId: string, reason: string): boolean {
    this.closedAt.delete(tunnelId);
    this.closedAt.set(tunnelId, performance.now());
    const [oldest] = this.closedAt.keys();
    if (this.closedAt.size > CLOSED_TUNNELS_MAX && oldest !== undefined) this.closedAt.delete(oldest);
    const session = this.sessions.get(tunnelId);
    session?.end('ordered', `tunnel closed: ${reason}`);
    return session !== undefined;
  }

  /** What a heartbeat says. */
  sessionRefs(): SessionRef[] {
    return [...this.sessions.values()].map(({ tunnelId, sessionId, epoch }) => ({ tunnelId, sessionId, epoch }));
  }

  /** Load since the last call. */
  load(): HeartbeatRequest['load'] {
    const now = { at: performance.now(), bytes: this.visitors.bytes.in + this.visitors.bytes.out };
    const seconds = Math.max(0.001, (now.at - this.lastLoad.at) / 1000);
    const bandwidthMbps = ((now.bytes - this.lastLoad.bytes) * 8) / 1e6 / seconds;
    this.lastLoad = now;
    return { connections: this.visitors.count, bandwidthMbps };
  }

  obey({ close }: HeartbeatResponse): void {
    for (const { tunnelId, sessionId, reason } of close) {
      const session = this.sessions.get(tunnelId);
      if (session?.sessionId === sessionId) session.end('ordered', `tunnel closed: ${reason}`);
    }
  }

  /** Ends every session. */
  stop(reason: SessionEndReason, text: string): void {
    for (const session of this.sessions.values()) session.end(reason, text);
  }

  private accept(id: string, challenge: string, tag: string, connection: FrameConnection): void {
    const session = this.visitors.ownerOf(id);
    // gone, or never there: nothing to say that would help the client
    if (!session) throw new ConnectionEnded('no such visitor');
    if (!verifyAnswer(session.key, challenge, tag)) throw new Refusal('invalid secret');
    this.visitors.carry(id, connection.socket, connection.detach());
  }

  private async hello(
    wish: { port: number; challenge: string; tag: string },
    connection: FrameConnection,
    authorizer: Authorizer,
  ): Promise<void> {
    const { socket } = connection;
    const address = socket.remoteAddress ?? '';
    const askedAt = performance.now();
    const grant = await authorizer.authorize({ ...wish, address });
    const held = this.ports.get(grant.port);
    if ((this.closedAt.get(grant.tunnelId) ?? -1) >= askedAt) throw new Refusal('invalid secret');
    if (held && !authorizer.allowsTakeover) throw new Refusal('port already in use');
    if (held && held.tunnelId === grant.tunnelId && held.epoch > grant.epoch)
      throw new Refusal('taken over by a newer connection');

    const port = held?.publicPort ?? new PublicPort(this.bindTunnels, grant.port);
    const session = new TunnelSession(grant, socket, port, (ended, reason) => this.onEnd(ended, reason));
    this.ports.set(grant.port, session);
    this.sessions.set(grant.tunnelId, session);
    port.onVisitor = (visitor) => this.visitors.admit(visitor, session);
    // the port stays open: it has another holder now
    held?.end('taken_over', 'taken over by another connection of this tunnel');
    connection.detach();
    if (socket.destroyed || socket.readableEnded) session.end('client_lost');
    try {
      await port.listen();
    } catch (error) {
      session.end('ordered', error instanceof Refusal ? error.message : 'failed to bind to port');
      return;
    }
    if (session.isOver) return;
    this.logger.info(
      {
        tunnelId: grant.tunnelId,
        sessionId: grant.sessionId,
        epoch: grant.epoch,
        port: grant.port,
        clientAddress: address,
      },
      'session began',
    );
    session.begin();
  }

  private onEnd(session: TunnelSession, reason: SessionEndReason): void {
    const { tunnelId, sessionId, epoch, publicPort } = session;
    if (this.sessions.get(tunnelId) === session) this.sessions.delete(tunnelId);
    if (this.ports.get(publicPort.port) === session) {
      this.ports.delete(publicPort.port);
      publicPort.close();
    }
    this.visitors.dropAllOf(session);
    this.logger.info({ tunnelId, sessionId, epoch, reason }, 'session ended');
    this.onSessionEnd({ tunnelId, sessionId, epoch, reason });
  }
}
