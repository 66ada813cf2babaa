import { setTimeout } from 'node:timers/promises';

import { NETWORK_TIMEOUT_MS } from '../protocol/frames.js';
import { reconnectDelayMs } from './backoff.js';
import { ABANDONED_ATTEMPT_MS, INVALID_SECRETS_MAX, STABLE_CONNECTION_MS, TUNNEL_STATE_MS } from './limits.js';
import { networkReason } from './network-error.js';
import { type ServerAddress, ServerConnection, ServerError, ServerRefusal } from './server-connection.js';
import { notice } from './terminal.js';
import type { Visitors } from './visitors.js';

/** Where a tunnel has its public end. */
export interface Place extends ServerAddress {
  readonly port: number;
  readonly publicAddress: string;
  readonly location: string;
}

/** What the API knows of the tunnel. */
export type TunnelStatus =
  | { readonly kind: 'open'; readonly place: Place }
  | { readonly kind: 'closed'; readonly reason: string }
  /** It answers, but not to this login any more: only the server's words are left to judge by. */
  | { readonly kind: 'withheld' }
  /** It does not answer. */
  | { readonly kind: 'unknown' };

/** Why a tunnel is carried no longer. */
export type CarryEnd =
  { readonly kind: 'stopped' | 'taken-over' | 'secret-invalid' } | { readonly kind: 'closed'; readonly reason: string };

/** How one control connection went. */
interface SessionEnd {
  /** The server had granted the tunnel. */
  readonly begun: boolean;
  readonly livedMs: number;
  /** The server's own words, when it said why. */
  readonly said?: string;
  readonly reason: string;
}

export interface CarrierOptions {
  readonly place: Place;
  readonly key: Buffer;
  readonly visitors: Visitors;
  readonly status: () => Promise<TunnelStatus>;
  /** Called whenever the tunnel has begun to work, with its place; `again` when only the connection is new. */
  readonly onConnected: (place: Place, again: boolean) => void;
  /** Ends it. */
  readonly signal: AbortSignal;
}

/** Carries one tunnel: holds a control connection to its server, again and again, for as long as the tunnel is open. */
export class Carrier {
  private place: Place;
  /** The place that was announced last. */
  private announced: Place | undefined;
  private lastReason = '';
  private abandonedAt = -Infinity;

  constructor(private readonly options: CarrierOptions) {
    this.place = options.place;
  }

  async run(): Promise<CarryEnd> {
    const { signal } = this.options;
    let failures = 0;
    let invalidSecrets = 0;
    for (;;) {
      const ended = await this.session();
      if (signal.aborted) return { kind: 'stopped' };
      if (this.isTakeover(ended)) return { kind: 'taken-over' };
      failures = ended.begun && ended.livedMs >= STABLE_CONNECTION_MS ? 1 : failures + 1;
      this.report(ended);

      // a lost connection is tried again at once, as all of a restarted server's clients do: no need to ask the API too
      const ask = ended.said !== undefined || failures > 1;
      const [status] = await Promise.all([ask ? this.status() : undefined, this.pause(reconnectDelayMs(failures))]);
      if (status?.kind === 'closed') return status;
      if (status?.kind === 'withheld' && isEnd(ended.said)) {
        return { kind: 'closed', reason: ended.said.replace('tunnel closed: ', '') };
      }
      if (status?.kind === 'open') {
        invalidSecrets = ended.said === 'invalid secret' && this.stays(status.place) ? invalidSecrets + 1 : 0;
        if (invalidSecrets >= INVALID_SECRETS_MAX) return { kind: 'secret-invalid' };
        this.place = status.place;
      }
    }
  }

  /** One control connection, from its beginning to its end. */
  private async session(): Promise<SessionEnd> {
    const { key, visitors, signal } = this.options;
    const { place } = this;
    const startedAt = performance.now();
    let begun = false;
    let connection: ServerConnection | undefined;
    const end = (reason: string, said?: string): SessionEnd => ({
      begun,
      livedMs: performance.now() - startedAt,
      reason,
      ...(said !== undefined && { said }),
    });
    try {
      connection = await ServerConnection.open(place, key, { kind: 'hello', port: place.port }, signal);
      for (;;) {
        const message = await connection.next(begun ? undefined : NETWORK_TIMEOUT_MS);
        if (message.kind === 'error') return end(`the server says: ${message.text}`, message.text);
        if (message.kind === 'connection') void visitors.fetch(place, message.id);
        if (message.kind === 'hello' && !begun) {
          if (message.port !== place.port) throw new ServerError(`the server offers port ${message.port}`);
          begun = true;
          this.connected(place);
        }
      }
    } catch (error) {
      if (error instanceof ServerRefusal) return end(`the server says: ${error.message}`, error.message);
      if (connection && !begun) this.abandonedAt = performance.now();
      return end(networkReason(error));
    } finally {
      connection?.socket.destroy();
    }
  }

  /** Somebody else carries the tunnel now. To come back would evict them, and they us, for ever. */
  private isTakeover({ said }: SessionEnd): boolean {
    if (said === undefined || !/^(taken over by|tunnel closed: superseded)/.test(said)) return false;
    return performance.now() - this.abandonedAt > ABANDONED_ATTEMPT_MS;
  }

  private connected(place: Place): void {
    const again = this.announced !== undefined && this.announced.publicAddress === place.publicAddress;
    this.announced = place;
    this.lastReason = '';
    this.options.onConnected(place, again);
  }

  /** Says what went wrong, once for each kind of trouble. */
  private report({ begun, reason }: SessionEnd): void {
    if (begun) notice(`The connection to the bore-server has ended (${reason}); reconnecting.`);
    else if (reason !== this.lastReason) notice(`Cannot connect to the bore-server (${reason}); trying again.`);
    this.lastReason = reason;
  }

  private async status(): Promise<TunnelStatus> {
    const late = setTimeout(TUNNEL_STATE_MS, { kind: 'unknown' } as const, { ref: false });
    return Promise.race([this.options.status(), late]);
  }

  private stays({ host, controlPort, port }: Place): boolean {
    return host === this.place.host && controlPort === this.place.controlPort && port === this.place.port;
  }

  private async pause(ms: number): Promise<void> {
    // stopped meanwhile: the next session does not begin
    await setTimeout(ms, undefined, { signal: this.options.signal }).catch(() => undefined);
  }
}

/** Words of the server after which it will not take this client again. */
function isEnd(said: string | undefined): said is string {
  return said !== undefined && /^(tunnel closed: |invalid secret$)/.test(said);
}
