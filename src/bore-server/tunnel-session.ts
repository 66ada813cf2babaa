import type { Socket } from 'node:net';

import { encodeServerMessage } from '../protocol/messages.js';
import type { Grant, SessionEndReason } from '../protocol/plane-api.js';
import { CONNECTIONS_PER_TUNNEL_MAX } from './limits.js';
import type { PublicPort } from './public-port.js';

/** One client carrying one tunnel: its control connection, and what it may do. */
export class TunnelSession {
  readonly tunnelId: string;
  readonly sessionId: string;
  readonly epoch: number;
  readonly key: Buffer;
  readonly maxVisitors: number;
  /** Visitors of this session, waiting or carried; kept by `Visitors`. */
  visitors = 0;
  waitingVisitors = 0;
  /** The client's connections for carried visitors. */
  readonly streams = new Set<Socket>();
  private ended = false;

  /**
   * @param publicPort handed over by the session before, or new
   * @param onEnd called once, with the reason
   */
  constructor(
    grant: Grant,
    private readonly control: Socket,
    readonly publicPort: PublicPort,
    private readonly onEnd: (session: TunnelSession, reason: SessionEndReason) => void,
  ) {
    this.tunnelId = grant.tunnelId;
    this.sessionId = grant.sessionId;
    this.epoch = grant.epoch;
    this.key = Buffer.from(grant.key, 'hex');
    this.maxVisitors = grant.maxConnections ?? CONNECTIONS_PER_TUNNEL_MAX;
    control.once('end', () => this.end('client_closed'));
    control.once('error', () => this.end('client_lost'));
    control.once('close', () => this.end('client_lost'));
  }

  get isOver(): boolean {
    return this.ended;
  }

  /** Tells the client its public port. From here on it says nothing more; what it says all the same is not kept. */
  begin(): void {
    this.control.write(encodeServerMessage({ kind: 'hello', port: this.publicPort.port }));
    this.control.resume();
  }

  /** Asks the client to fetch a visitor. */
  sendConnection(id: string): void {
    if (!this.ended) this.control.write(encodeServerMessage({ kind: 'connection', id }));
  }

  /**
   * Ends the session, once.
   * @param text told to the client before its connection is closed
   */
  end(reason: SessionEndReason, text?: string): void {
    if (this.ended) return;
    this.ended = true;
    if (text !== undefined && this.control.writable) this.control.write(encodeServerMessage({ kind: 'error', text }));
    this.control.destroySoon();
    this.onEnd(this, reason);
  }
}
