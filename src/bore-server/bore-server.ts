import type { Logger } from 'pino';

import { verifyAnswer } from '../protocol/challenge.js';
import type { HeartbeatRequest, HeartbeatResponse, SessionEndReason, SessionRef } from '../protocol/plane-api.js';
import type { Authorizer } from './authorizer.js';
import { ConnectionEnded, type FrameConnection } from './frame-connection.js';
import { type Greeting, Refusal } from './handshake.js';
import { CLOSED_TUNNELS_MAX } from './limits.js';
import type { Metrics } from './metrics.js';
import { PublicPort } from './public-port.js';
import { Tunnel } from './tunnel.js';
import { TunnelSession } from './tunnel-session.js';
import { Visitors } from './visitors.js';

/**
 * Ends of a session after which its streams may live on: the client's machine is there, and if the client itself is
 * not, its kernel ends its streams. After any other end nobody is there to carry them.
 */
const STREAMS_SURVIVE: ReadonlySet<SessionEndReason> = new Set(['client_closed', 'client_reset']);

/** The data plane itself: which tunnels there are, and what a client's greeting leads to. */
export class BoreServer {
  /** Tunnels with a session or with visitors, and the tunnels that hold a port. At most one for each public port. */
  private readonly tunnels = new Map<string, Tunnel>();
  private readonly ports = new Map<number, Tunnel>();
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
    this.visitors = new Visitors(metrics, (tunnel) => this.forgetIdle(tunnel));
    metrics.observe(() => ({
      connections: this.visitors.count,
      tunnels: this.ports.size,
      bytes: this.visitors.bytes,
    }));
  }

  /** @throws Refusal, ConnectionEnded */
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
    const tunnel = this.tunnels.get(tunnelId);
    if (!tunnel) return false;
    tunnel.session?.end('ordered', `tunnel closed: ${reason}`);
    this.visitors.dropCarried(tunnel);
    return true;
  }

  /** What a heartbeat says. */
  sessionRefs(): SessionRef[] {
    return [...this.ports.values()].flatMap(({ session }) => (session ? [session.ref] : []));
  }

  /** Load since the last call. */
  load(): HeartbeatRequest['load'] {
    const { in: bytesIn, out: bytesOut } = this.visitors.bytes;
    const now = { at: performance.now(), bytes: bytesIn + bytesOut };
    const seconds = Math.max(0.001, (now.at - this.lastLoad.at) / 1000);
    const bandwidthMbps = ((now.bytes - this.lastLoad.bytes) * 8) / 1e6 / seconds;
    this.lastLoad = now;
    return { connections: this.visitors.count, bandwidthMbps };
  }

  obey({ close }: HeartbeatResponse): void {
    for (const { tunnelId, sessionId, reason } of close) {
      const session = this.tunnels.get(tunnelId)?.session;
      if (session?.ref.sessionId === sessionId) session.end('ordered', `tunnel closed: ${reason}`);
    }
  }

  /** Ends every session and every stream. */
  stop(reason: SessionEndReason, text: string): void {
    for (const tunnel of this.tunnels.values()) {
      tunnel.session?.end(reason, text);
      this.visitors.dropCarried(tunnel);
    }
  }

  private accept(id: string, challenge: string, tag: string, connection: FrameConnection): void {
    const tunnel = this.visitors.tunnelOf(id);
    // gone, or never there: nothing to say that would help the client
    if (!tunnel) throw new ConnectionEnded('no such visitor');
    if (!verifyAnswer(tunnel.key, challenge, tag)) throw new Refusal('invalid secret');
    this.visitors.carry(id, connection.socket, connection.detach());
  }

  private async hello(
    wish: { port: number; challenge: string; tag: string },
    connection: FrameConnection,
    authorizer: Authorizer,
  ): Promise<void> {
    const { socket } = connection;
    const askedAt = performance.now();
    const grant = await authorizer.authorize({ ...wish, address: socket.remoteAddress ?? '' });
    if ((this.closedAt.get(grant.tunnelId) ?? -1) >= askedAt) throw new Refusal('invalid secret');
    const tunnel = this.tunnels.get(grant.tunnelId) ?? new Tunnel(grant);
    const holder = this.ports.get(grant.port);
    const before = tunnel.session;
    if (holder && !authorizer.allowsTakeover) throw new Refusal('port already in use');
    if (before && before.ref.epoch > grant.epoch) throw new Refusal('taken over by a newer connection');

    const session = new TunnelSession(grant, socket, (reason) => this.onEnd(tunnel, session, reason));
    if (holder !== tunnel) this.closePort(tunnel);
    const port = this.takePort(grant.port, holder);
    port.onVisitor = (visitor) => this.visitors.admit(visitor, tunnel);
    this.ports.set(grant.port, tunnel);
    this.tunnels.set(grant.tunnelId, tunnel);
    tunnel.update(grant);
    tunnel.session = session;
    tunnel.publicPort = port;
    before?.end('taken_over', 'taken over by another connection of this tunnel');
    if (holder !== tunnel) holder?.session?.end('ordered', 'tunnel closed');
    connection.detach();
    await this.begin(tunnel, session, port, socket.remoteAddress);
  }

  private async begin(
    tunnel: Tunnel,
    session: TunnelSession,
    port: PublicPort,
    clientAddress: string | undefined,
  ): Promise<void> {
    try {
      await port.listen();
    } catch (error) {
      session.end('port_unavailable', error instanceof Refusal ? error.message : 'failed to bind to port');
      return;
    }
    if (session.isOver) return;
    this.logger.info({ ...session.ref, port: port.port, clientAddress }, 'session began');
    session.begin(port.port);
    this.visitors.announceTo(tunnel);
  }

  private onEnd(tunnel: Tunnel, session: TunnelSession, reason: SessionEndReason): void {
    if (!STREAMS_SURVIVE.has(reason)) this.visitors.dropCarried(tunnel);
    if (tunnel.session === session) {
      tunnel.session = undefined;
      this.visitors.dismissWaiting(tunnel);
      this.closePort(tunnel);
    }
    this.logger.info({ ...session.ref, reason }, 'session ended');
    this.onSessionEnd({ ...session.ref, reason });
    this.forgetIdle(tunnel);
  }

  /**
   * The port itself, which stays open when it changes hands. Another tunnel that holds it has been closed, and its port
   * given away, before we heard of it.
   */
  private takePort(port: number, holder: Tunnel | undefined): PublicPort {
    if (!holder?.publicPort) return new PublicPort(this.bindTunnels, port);
    const { publicPort } = holder;
    holder.publicPort = undefined;
    return publicPort;
  }

  private closePort(tunnel: Tunnel): void {
    const { publicPort } = tunnel;
    if (!publicPort) return;
    publicPort.close();
    this.ports.delete(publicPort.port);
    tunnel.publicPort = undefined;
  }

  private forgetIdle(tunnel: Tunnel): void {
    if (tunnel.isIdle && this.tunnels.get(tunnel.id) === tunnel) this.tunnels.delete(tunnel.id);
  }
}
