import { verifyAnswer } from '../protocol/challenge.js';
import type { Fence, Grant, HeartbeatRequest, HeartbeatResponse, SessionEndReason } from '../protocol/plane-api.js';
import type { TunnelSettings } from '../protocol/tunnel-settings.js';
import type { Applicant, Authorizer } from './authorizer.js';
import type { BoreServerContext } from './bore-server-context.js';
import { closing, Fences, isBehind, isOlder, sessionEndOf } from './fences.js';
import { ConnectionEnded, type FrameConnection } from './frame-connection.js';
import { keptOf, LoadMeter, sessionsOf } from './heartbeat.js';
import { type Greeting, Refusal, Rejection } from './handshake.js';
import type { ServerFigures } from './metrics.js';
import { PublicPort } from './public-port.js';
import { Quiet } from './quiet.js';
import { STREAMS_SURVIVE, visitorsEnd } from './session-end.js';
import { CountBySource, sourceOf } from './sources.js';
import { Tunnel } from './tunnel.js';
import { TunnelSession } from './tunnel-session.js';
import { Visitors } from './visitors.js';

/** The data plane itself: which tunnels there are, and what a client's greeting leads to. */
export class BoreServer {
  /** Tunnels with a session or with visitors, and the tunnels that hold a port. At most one for each public port. */
  private readonly tunnels = new Map<string, Tunnel>();
  private readonly ports = new Map<number, Tunnel>();
  private readonly visitors: Visitors;
  private readonly sessionsBySource = new CountBySource();
  private readonly fences = new Fences();
  private readonly load = new LoadMeter();
  private isStopping = false;
  /** Clients about whom the control plane is being asked, by their number, the oldest first. */
  private readonly asked = new Set<number>();
  private lastAsked = 0;
  /** Sessions that the last heartbeat called superseded while somebody was asked about; by whom it may have been, at most. */
  private doubted: ReadonlyMap<string, number> = new Map();
  private readonly quiet = new Quiet(() => this.visitors.count === 0);

  constructor(private readonly context: BoreServerContext) {
    this.visitors = new Visitors({ ...context, onLeave: (tunnel) => this.onVisitorLeft(tunnel) });
  }

  /** What of it metrics show. */
  get figures(): Pick<ServerFigures, 'connections' | 'visitorsPending' | 'sessions' | 'bytes'> {
    const { count, pending, bytes } = this.visitors;
    return { connections: count, visitorsPending: pending, sessions: this.ports.size, bytes };
  }

  /** @throws Refusal, ConnectionEnded */
  async onGreeting(
    { challenge, tag, message }: Greeting,
    address: string,
    connection: FrameConnection,
    authorizer: Authorizer,
  ): Promise<void> {
    if (message.kind === 'accept') return this.accept(message.id, challenge, tag, connection);
    return this.hello({ port: message.port, challenge, tag, address }, connection, authorizer);
  }

  isPortTaken(port: number): boolean {
    return this.ports.has(port);
  }

  /** Whether a client at this address carries a tunnel. */
  hasSessionFrom(source: string): boolean {
    return this.sessionsBySource.of(source) > 0;
  }

  /** Ends what is behind a fence; false when nothing of the tunnel is here. */
  fence(fence: Fence): boolean {
    this.context.onFence(fence);
    this.fences.add(fence);
    const tunnel = this.tunnels.get(fence.tunnelId);
    if (!tunnel) return false;
    const { session } = tunnel;
    if (session && isBehind(session.authority, fence)) session.end(...sessionEndOf(fence));
    this.visitors.dropFenced(tunnel, fence);
    return true;
  }

  /**
   * Ends the tunnels whose time to live ended before `time`: the control plane has not done so, and is not there. It may
   * have given a tunnel more time since; its client may ask again then.
   */
  endExpired(time: number): void {
    for (const tunnel of this.tunnels.values()) {
      if (!tunnel.hasExpiredBefore(time)) continue;
      this.fence({ tunnelId: tunnel.id, epoch: tunnel.authority.epoch, keyVersion: 0, reason: 'expired' });
    }
  }

  /** The owner has changed what visitors may do; false when the tunnel is not here. */
  updateTunnel(tunnelId: string, settings: TunnelSettings): boolean {
    this.context.onSettings(tunnelId, settings);
    const tunnel = this.tunnels.get(tunnelId);
    tunnel?.update(settings);
    if (tunnel) this.visitors.enforcePolicy(tunnel);
    return tunnel !== undefined;
  }

  /** What a heartbeat says, with the grants that are kept. */
  heartbeat(grants: readonly Grant[]): Pick<HeartbeatRequest, 'sessions' | 'kept' | 'load'> {
    const kept = keptOf(this.tunnels.values(), grants);
    return {
      sessions: sessionsOf(this.ports.values()),
      load: this.load.read(this.visitors),
      ...(kept.length > 0 && { kept }),
    };
  }

  obey({ close, fences, update }: Pick<HeartbeatResponse, 'close' | 'fences' | 'update'>): void {
    for (const fence of fences) this.fence(fence);
    const doubted = new Map<string, number>();
    const [oldestAsked = Infinity] = this.asked;
    for (const { tunnelId, sessionId, reason } of close) {
      const session = this.tunnels.get(tunnelId)?.session;
      if (session?.ref.sessionId !== sessionId) continue;
      // by a client whose grant is perhaps on its way here: it takes over, with the visitors. Else a later heartbeat says it again
      const by = this.doubted.get(sessionId) ?? this.lastAsked;
      if (reason === 'superseded' && oldestAsked <= by) {
        doubted.set(sessionId, by);
        continue;
      }
      this.context.onFence(closing(tunnelId, reason));
      session.end('ordered', `tunnel closed: ${reason}`);
    }
    this.doubted = doubted;
    for (const { tunnelId, settings } of update) this.updateTunnel(tunnelId, settings);
  }

  /**
   * Lets nobody new in, neither clients nor visitors, and waits until the visitors that are carried have left, or for
   * `graceMs`.
   */
  async drain(graceMs: number): Promise<void> {
    this.isStopping = true;
    for (const tunnel of this.tunnels.values()) tunnel.publicPort?.close();
    await this.quiet.within(graceMs);
  }

  /** Ends every session and every stream. */
  stop(): void {
    for (const tunnel of this.tunnels.values()) {
      tunnel.session?.end('server_stopping', 'server is stopping');
      this.visitors.dropCarried(tunnel, 'drain');
    }
  }

  private accept(id: string, challenge: string, tag: string, connection: FrameConnection): void {
    const tunnel = this.visitors.tunnelOf(id);
    // gone, or never there: nothing to say that would help the client
    if (!tunnel) throw new ConnectionEnded('no such visitor');
    if (!verifyAnswer(tunnel.key, challenge, tag)) throw new Rejection('invalid secret');
    this.visitors.carry(id, connection.socket, connection.detach());
  }

  private async hello(wish: Applicant, connection: FrameConnection, authorizer: Authorizer): Promise<void> {
    if (this.isStopping) throw new Refusal('server is stopping');
    const { socket } = connection;
    const askedAt = performance.now();
    const number = ++this.lastAsked;
    this.asked.add(number);
    const grant = await authorizer.authorize(wish).finally(() => this.asked.delete(number));
    if (this.isStopping) throw new Refusal('server is stopping');
    // it left while it was asked about: its end has been heard, and would be heard by nobody again
    if (socket.destroyed || socket.readableEnded) throw new ConnectionEnded('the client left');
    const fence = this.fences.against(grant.tunnelId, grant, askedAt);
    if (fence) {
      this.context.onFence(fence);
      throw new Refusal(fence.reason === 'disconnected' ? sessionEndOf(fence)[1] : 'invalid secret');
    }
    const tunnel = this.tunnels.get(grant.tunnelId) ?? new Tunnel(grant, this.context.limits);
    const holder = this.ports.get(grant.port);
    const before = tunnel.session;
    if (holder && !authorizer.allowsTakeover) throw new Refusal('port already in use');
    if (before && isOlder(grant, before.authority)) throw new Refusal('taken over by a newer connection');

    const source = sourceOf(wish.address);
    const session = new TunnelSession(grant, socket, (reason) => {
      this.sessionsBySource.remove(source);
      this.onEnd(tunnel, session, reason);
    });
    this.sessionsBySource.add(source);
    if (holder !== tunnel) this.closePort(tunnel);
    const port = this.takePort(grant.port, holder);
    port.onVisitor = (visitor) => this.visitors.admit(visitor, tunnel);
    this.ports.set(grant.port, tunnel);
    this.tunnels.set(grant.tunnelId, tunnel);
    tunnel.admit(grant);
    tunnel.session = session;
    tunnel.publicPort = port;
    before?.end('taken_over', 'taken over by another connection of this tunnel');
    if (holder !== tunnel) holder?.session?.end('ordered', 'tunnel closed');
    connection.detach();
    this.visitors.enforcePolicy(tunnel);
    await this.begin(tunnel, session, port, wish.address);
    if (!session.isOver)
      this.context.metrics.handshakeSeconds.observe((performance.now() - connection.openedAt) / 1000);
  }

  private async begin(tunnel: Tunnel, session: TunnelSession, port: PublicPort, clientAddress: string): Promise<void> {
    try {
      await port.listen();
    } catch (error) {
      session.end('port_unavailable', error instanceof Refusal ? error.message : 'failed to bind to port');
      return;
    }
    if (session.isOver) return;
    this.context.logger.info({ ...session.ref, port: port.port, clientAddress }, 'session began');
    session.begin(port.port);
    this.visitors.announceTo(tunnel);
  }

  private onEnd(tunnel: Tunnel, session: TunnelSession, reason: SessionEndReason): void {
    if (!STREAMS_SURVIVE.has(reason)) this.visitors.dropCarried(tunnel, visitorsEnd(reason));
    if (tunnel.session === session) {
      tunnel.session = undefined;
      this.visitors.dismissWaiting(tunnel, visitorsEnd(reason));
      this.closePort(tunnel);
    }
    this.context.logger.info({ ...session.ref, reason }, 'session ended');
    this.context.onSessionEnd({ ...session.ref, reason });
    this.forgetIdle(tunnel);
  }

  /**
   * The port itself, which stays open when it changes hands. Another tunnel that holds it has been closed, and its port
   * given away, before we heard of it.
   */
  private takePort(port: number, holder: Tunnel | undefined): PublicPort {
    if (!holder?.publicPort) return new PublicPort(this.context.bindTunnels, port);
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

  private onVisitorLeft(tunnel: Tunnel): void {
    this.forgetIdle(tunnel);
    this.quiet.check();
  }

  private forgetIdle(tunnel: Tunnel): void {
    if (tunnel.isIdle && this.tunnels.get(tunnel.id) === tunnel) this.tunnels.delete(tunnel.id);
  }
}
