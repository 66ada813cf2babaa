import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import CircuitBreaker from 'opossum';
import type { Logger } from 'pino';

import { CONFIG, type Config } from '../platform/config/config.js';
import { LOGGER } from '../platform/logging/logger.js';
import { CloseTunnelResponse, INTERNAL_KEY_HEADER, type CloseTunnelRequest } from '../protocol/plane-api.js';

/** A tunnel must be closed on the wire within 2 s of its deletion; this leaves room for the answer. */
const CALL_TIMEOUT_MS = 1_500;
/** How long an open breaker waits before it lets one call through. */
const RESET_TIMEOUT_MS = 5_000;
/** Breakers kept: more servers than any fleet has; the least recently used goes first. */
const BREAKERS_MAX = 1_000;

type Call = (adminUrl: string, tunnelId: string, request: CloseTunnelRequest) => Promise<boolean>;
type Breaker = CircuitBreaker<Parameters<Call>, boolean>;

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
  async closeTunnel(server: CallableServer, tunnelId: string, reason: string): Promise<boolean> {
    if (server.adminUrl === null) return false;
    try {
      await this.breakerOf(server.id).fire(server.adminUrl, tunnelId, { reason });
      return true;
    } catch (err) {
      this.logger.warn({ err, serverId: server.id, tunnelId }, 'bore-server could not be asked to close a tunnel');
      return false;
    }
  }

  /** Ids of servers whose breaker is open: nothing new should be placed there. */
  unreachable(): string[] {
    return [...this.breakers].filter(([, breaker]) => breaker.opened).map(([id]) => id);
  }

  onApplicationShutdown(): void {
    for (const breaker of this.breakers.values()) breaker.shutdown();
    this.breakers.clear();
  }

  private breakerOf(serverId: string): Breaker {
    const known = this.breakers.get(serverId);
    const breaker = known ?? this.newBreaker(serverId);
    // to the end of the map: the first entry is the least recently used
    this.breakers.delete(serverId);
    this.breakers.set(serverId, breaker);
    const [oldest] = this.breakers.keys();
    if (this.breakers.size > BREAKERS_MAX && oldest !== undefined) {
      this.breakers.get(oldest)?.shutdown();
      this.breakers.delete(oldest);
    }
    return breaker;
  }

  private newBreaker(serverId: string): Breaker {
    const breaker: Breaker = new CircuitBreaker<Parameters<Call>, boolean>((...call) => this.postClose(...call), {
      name: serverId,
      timeout: CALL_TIMEOUT_MS,
      resetTimeout: RESET_TIMEOUT_MS,
      errorThresholdPercentage: 50,
      // one failed call says little
      volumeThreshold: 3,
    });
    breaker.on('open', () => this.logger.warn({ serverId }, 'circuit breaker opened'));
    breaker.on('close', () => this.logger.info({ serverId }, 'circuit breaker closed'));
    return breaker;
  }

  private async postClose(adminUrl: string, tunnelId: string, request: CloseTunnelRequest): Promise<boolean> {
    const [key] = this.config.INTERNAL_API_KEY;
    const response = await fetch(new URL(`/tunnels/${tunnelId}/close`, adminUrl), {
      method: 'POST',
      headers: { 'content-type': 'application/json', [INTERNAL_KEY_HEADER]: key?.reveal() ?? '' },
      body: JSON.stringify(request),
      redirect: 'error',
      signal: AbortSignal.timeout(CALL_TIMEOUT_MS),
    });
    if (!response.ok) {
      await response.body?.cancel();
      throw new Error(`bore-server answered ${response.status}`);
    }
    return CloseTunnelResponse.parse(await response.json()).closed;
  }
}
