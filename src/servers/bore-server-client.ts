import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import CircuitBreaker from 'opossum';
import type { Logger } from 'pino';
import type { z } from 'zod';

import { CONFIG, type Config } from '../platform/config/config.js';
import { LOGGER } from '../platform/logging/logger.js';
import {
  type CloseTunnelRequest,
  CloseTunnelResponse,
  type Fence,
  type FenceRequest,
  FenceResponse,
  INTERNAL_KEY_HEADER,
  UpdateTunnelResponse,
} from '../protocol/plane-api.js';
import { type TunnelSettings } from '../protocol/tunnel-settings.js';
import type { BreakerState } from './breaker.js';

/** A tunnel must be closed on the wire within 2 s of its deletion; this leaves room for the answer. */
const CALL_TIMEOUT_MS = 1_500;
/** How long an open breaker waits before it lets one call through. */
const RESET_TIMEOUT_MS = 5_000;
/** Failures in a row that open a breaker: one failed call says little. */
const FAILURES_TO_OPEN = 3;
/** Breakers kept: more servers than any fleet has; the least recently used goes first. */
const BREAKERS_MAX = 1_000;

/** What a bore-server is told: the path below its admin URL, the body, and what it answers. */
interface Order {
  readonly path: string;
  readonly body: CloseTunnelRequest | FenceRequest | TunnelSettings;
  readonly answer: z.ZodType;
}
type Breaker = CircuitBreaker<[adminUrl: string, order: Order], void>;

/** A bore-server that backends call. */
export interface CallableServer {
  readonly id: string;
  readonly adminUrl: string | null;
}

/** Backend → bore-server calls, each server behind its own circuit breaker. */
@Injectable()
export class BoreServerClient implements OnApplicationShutdown {
  private readonly breakers = new Map<string, Breaker>();

  constructor(
    @Inject(CONFIG) private readonly config: Config,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /**
   * Asks a server to end whatever carries a tunnel. False when it could not be asked now: the answer to its next
   * heartbeat asks again.
   */
  closeTunnel(server: CallableServer, tunnelId: string, reason: string): Promise<boolean> {
    return this.tell(server, { path: `/tunnels/${tunnelId}/close`, body: { reason }, answer: CloseTunnelResponse });
  }

  /** Asks a server to end what is behind a fence. False when it could not be asked now: the answer to its next heartbeat does. */
  fenceTunnel(server: CallableServer, { tunnelId, epoch, keyVersion, reason }: Fence): Promise<boolean> {
    const body = { epoch, keyVersion, reason };
    return this.tell(server, { path: `/tunnels/${tunnelId}/fence`, body, answer: FenceResponse });
  }

  /** Gives a server new settings of a tunnel. False when it could not be told now: the answer to its next heartbeat does. */
  updateTunnel(server: CallableServer, tunnelId: string, settings: TunnelSettings): Promise<boolean> {
    return this.tell(server, { path: `/tunnels/${tunnelId}/settings`, body: settings, answer: UpdateTunnelResponse });
  }

  /** Ids of servers whose breaker is open: nothing new should be placed there. */
  unreachable(): string[] {
    return [...this.breakers].filter(([, breaker]) => breaker.opened).map(([id]) => id);
  }

  /** What this backend's breakers are like. */
  breakerStates(): BreakerState[] {
    return [...this.breakers].map(([serverId, breaker]) => {
      const { fires, successes, failures, timeouts, rejects, latencyMean } = breaker.stats;
      return {
        serverId,
        state: breaker.halfOpen ? 'half-open' : breaker.opened ? 'open' : 'closed',
        stats: { calls: fires, successes, failures, timeouts, rejects, latencyMeanMs: latencyMean },
      };
    });
  }

  /** A breaker begins anew, closed: its old failures must not open it with the next one. */
  resetBreaker(serverId: string): void {
    const breaker = this.breakers.get(serverId);
    if (!breaker) return;
    breaker.shutdown();
    this.breakers.set(serverId, this.newBreaker(serverId));
    this.logger.info({ serverId }, 'circuit breaker reset');
  }

  /** Of a server that is no longer in the register. */
  forgetBreaker(serverId: string): void {
    this.breakers.get(serverId)?.shutdown();
    this.breakers.delete(serverId);
  }

  onApplicationShutdown(): void {
    for (const breaker of this.breakers.values()) breaker.shutdown();
    this.breakers.clear();
  }

  private async tell(server: CallableServer, order: Order): Promise<boolean> {
    if (server.adminUrl === null) return false;
    const breaker = this.breakerOf(server.id);
    const told = breaker.fire(server.adminUrl, order).then(
      () => true,
      (err: unknown) => {
        this.logger.warn({ err, serverId: server.id, path: order.path }, 'bore-server could not be told');
        return false;
      },
    );
    // the one call that tries a server again may hang as those before it did: no request waits for it
    return breaker.halfOpen ? false : told;
  }

  private breakerOf(serverId: string): Breaker {
    const known = this.breakers.get(serverId);
    const breaker = known ?? this.newBreaker(serverId);
    // to the end of the map: the first entry is the least recently used
    this.breakers.delete(serverId);
    this.breakers.set(serverId, breaker);
    const [oldest] = this.breakers.keys();
    if (this.breakers.size > BREAKERS_MAX && oldest !== undefined) this.forgetBreaker(oldest);
    return breaker;
  }

  private newBreaker(serverId: string): Breaker {
    const breaker: Breaker = new CircuitBreaker<[string, Order], void>((...call) => this.post(...call), {
      name: serverId,
      timeout: CALL_TIMEOUT_MS,
      resetTimeout: RESET_TIMEOUT_MS,
      // its own rule never opens it: a share of all calls, rejected ones too, lets many hang after a busy time
      volumeThreshold: Number.MAX_SAFE_INTEGER,
      // a timer less for each: nobody listens to them
      enableSnapshots: false,
    });
    let failuresInARow = 0;
    breaker.on('success', () => (failuresInARow = 0));
    breaker.on('failure', () => {
      if (++failuresInARow >= FAILURES_TO_OPEN) breaker.open();
    });
    breaker.on('open', () => this.logger.warn({ serverId }, 'circuit breaker opened'));
    breaker.on('close', () => this.logger.info({ serverId }, 'circuit breaker closed'));
    return breaker;
  }

  private async post(adminUrl: string, { path, body, answer }: Order): Promise<void> {
    const [key] = this.config.INTERNAL_API_KEY;
    const response = await fetch(new URL(path, adminUrl), {
      method: 'POST',
      headers: { 'content-type': 'application/json', [INTERNAL_KEY_HEADER]: key?.reveal() ?? '' },
      body: JSON.stringify(body),
      redirect: 'error',
      signal: AbortSignal.timeout(CALL_TIMEOUT_MS),
    });
    if (!response.ok) {
      await response.body?.cancel();
      throw new Error(`bore-server answered ${response.status}`);
    }
    answer.parse(await response.json());
  }
}
