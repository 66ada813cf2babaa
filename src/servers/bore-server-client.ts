import { AsyncResource } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';

import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import CircuitBreaker from 'opossum';
import type { Logger } from 'pino';
import type { z } from 'zod';

import { CONFIG, type Config } from '../platform/config/config.js';
import { LOGGER } from '../platform/logging/logger.js';
import { currentRequestId } from '../platform/queue/job-context.js';
import {
  type CloseTunnelRequest,
  CloseTunnelResponse,
  type Fence,
  type FenceRequest,
  FenceResponse,
  INTERNAL_KEY_HEADER,
  UpdateTunnelResponse,
} from '../protocol/plane-api.js';
import { REQUEST_ID_HEADER } from '../protocol/request-id.js';
import { type TunnelSettings } from '../protocol/tunnel-settings.js';
import { inSpan, SpanKind, traceHeaders } from '../tracing/spans.js';
import type { BreakerState } from './breaker.js';

/** A tunnel must be closed on the wire within 2 s of its deletion; this leaves room for the answer. */
const CALL_TIMEOUT_MS = 1_500;
/** How long an open breaker waits before the server is tried again. */
const RESET_TIMEOUT_MS = 5_000;
/** Failures in a row that open a breaker: one failed call says little. */
const FAILURES_TO_OPEN = 3;
/** Breakers kept: more servers than any fleet has; the least recently used goes first. */
const BREAKERS_MAX = 1_000;

/** What a bore-server is told of a tunnel: the last part of the path below its admin URL, the body, and what it answers. */
interface Order {
  readonly tunnelId: string;
  readonly order: 'close' | 'fence' | 'settings';
  readonly body: CloseTunnelRequest | FenceRequest | TunnelSettings;
  readonly answer: z.ZodType;
}
type Breaker = CircuitBreaker<[order: Order, requestId: string], void>;

/**
 * Tries a server again, on the way of every order and with our key, and changes nothing: no tunnel has this id, and nothing is behind
 * this fence.
 */
const PROBE: Order = {
  tunnelId: '00000000-0000-0000-0000-000000000000',
  order: 'fence',
  body: { epoch: 0, keyVersion: 0, reason: 'probe' },
  answer: FenceResponse,
};

/** A bore-server that backends call. */
export interface CallableServer {
  readonly id: string;
  readonly adminUrl: string | null;
}

/** A server that was called: its breaker, and where it is, as far as is known; `null`: nowhere to be tried. */
interface Called {
  readonly breaker: Breaker;
  adminUrl: string | null;
}

/** Backend → bore-server calls, each server behind its own circuit breaker. */
@Injectable()
export class BoreServerClient implements OnApplicationShutdown {
  private readonly called = new Map<string, Called>();
  /** Where probes run: the timer that sends one was set by a request or a job, which has nothing to do with it. */
  private readonly apart = new AsyncResource('bore-server probe');

  constructor(
    @Inject(CONFIG) private readonly config: Config,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /**
   * Asks a server to end whatever carries a tunnel. False when it could not be asked now: the answer to its next
   * heartbeat asks again.
   */
  closeTunnel(server: CallableServer, tunnelId: string, reason: string): Promise<boolean> {
    return this.tell(server, { tunnelId, order: 'close', body: { reason }, answer: CloseTunnelResponse });
  }

  /** Asks a server to end what is behind a fence. False when it could not be asked now: the answer to its next heartbeat does. */
  fenceTunnel(server: CallableServer, { tunnelId, epoch, keyVersion, reason }: Fence): Promise<boolean> {
    const body = { epoch, keyVersion, reason };
    return this.tell(server, { tunnelId, order: 'fence', body, answer: FenceResponse });
  }

  /** Gives a server new settings of a tunnel. False when it could not be told now: the answer to its next heartbeat does. */
  updateTunnel(server: CallableServer, tunnelId: string, settings: TunnelSettings): Promise<boolean> {
    return this.tell(server, { tunnelId, order: 'settings', body: settings, answer: UpdateTunnelResponse });
  }

  /** Ids of servers that did not answer, and have not since: nothing new should be placed there. */
  unreachable(): string[] {
    return [...this.called].filter(([, { breaker }]) => !breaker.closed).map(([id]) => id);
  }

  /** What this backend's breakers are like. */
  breakerStates(): BreakerState[] {
    return [...this.called].map(([serverId, { breaker }]) => {
      const { fires, successes, failures, timeouts, rejects, latencyMean } = breaker.stats;
      return {
        serverId,
        state: breaker.halfOpen ? 'half-open' : breaker.opened ? 'open' : 'closed',
        stats: { calls: fires, successes, failures, timeouts, rejects, latencyMeanMs: latencyMean },
      };
    });
  }

  /** Where a server is that was not reached; `null`: it is not there, and there is nobody to try. */
  tryAt(serverId: string, adminUrl: string | null): void {
    const called = this.called.get(serverId);
    if (called) called.adminUrl = adminUrl;
  }

  /** A breaker begins anew, closed: its old failures must not open it with the next one. */
  resetBreaker(serverId: string): void {
    const called = this.called.get(serverId);
    if (!called) return;
    called.breaker.shutdown();
    this.called.set(serverId, this.newCalled(serverId, called.adminUrl));
    this.logger.info({ serverId }, 'circuit breaker reset');
  }

  /** Of a server that is no longer in the register. */
  forgetBreaker(serverId: string): void {
    this.called.get(serverId)?.breaker.shutdown();
    this.called.delete(serverId);
  }

  onApplicationShutdown(): void {
    for (const { breaker } of this.called.values()) breaker.shutdown();
    this.called.clear();
  }

  private async tell(server: CallableServer, order: Order): Promise<boolean> {
    if (server.adminUrl === null) return false;
    const { breaker } = this.calledAt(server.id, server.adminUrl);
    const { tunnelId, order: name } = order;
    return breaker.fire(order, currentRequestId()).then(
      () => true,
      (err: unknown) => {
        this.logger.warn({ err, serverId: server.id, tunnelId, order: name }, 'bore-server could not be told');
        return false;
      },
    );
  }

  private calledAt(serverId: string, adminUrl: string): Called {
    const called = this.called.get(serverId) ?? this.newCalled(serverId, adminUrl);
    // one that was not reached is tried where the exchange says, which knows whether it is there at all
    if (called.breaker.closed) called.adminUrl = adminUrl;
    // to the end of the map: the first entry is the least recently used
    this.called.delete(serverId);
    this.called.set(serverId, called);
    const [oldest] = this.called.keys();
    if (this.called.size > BREAKERS_MAX && oldest !== undefined) this.forgetBreaker(oldest);
    return called;
  }

  private newCalled(serverId: string, adminUrl: string | null): Called {
    const breaker: Breaker = new CircuitBreaker<[Order, string], void>(
      (...call) => this.postTraced(serverId, called.adminUrl, ...call),
      {
        name: serverId,
        timeout: CALL_TIMEOUT_MS,
        resetTimeout: RESET_TIMEOUT_MS,
        // its own rule never opens it: a share of all calls, rejected ones too, lets many hang after a busy time
        volumeThreshold: Number.MAX_SAFE_INTEGER,
        // a timer less for each: nobody listens to them
        enableSnapshots: false,
      },
    );
    const called: Called = { breaker, adminUrl };
    let failuresInARow = 0;
    breaker.on('success', () => {
      // not of a call that began before the breaker was open
      if (breaker.closed) failuresInARow = 0;
    });
    breaker.on('failure', () => {
      if (++failuresInARow === FAILURES_TO_OPEN) this.logger.warn({ serverId }, 'circuit breaker opened');
      if (failuresInARow >= FAILURES_TO_OPEN) breaker.open();
    });
    // the one call that a half-open breaker lets through: no order waits for a server that may hang, and none has to come
    breaker.on('halfOpen', () => {
      const requestId = randomUUID();
      this.apart.runInAsyncScope(() => {
        breaker
          .fire(PROBE, requestId)
          .catch((err: unknown) => this.logger.debug({ err, serverId, requestId }, 'probe failed'));
      });
    });
    breaker.on('close', () => this.logger.info({ serverId }, 'circuit breaker closed'));
    return called;
  }

  private async postTraced(serverId: string, adminUrl: string | null, order: Order, requestId: string): Promise<void> {
    if (adminUrl === null) throw new Error('the bore-server is not there');
    const template = `/tunnels/{id}/${order.order}`;
    const { hostname, port } = new URL(adminUrl);
    const attributes = {
      'http.request.method': 'POST',
      'url.template': template,
      'server.address': hostname,
      ...(port !== '' && { 'server.port': Number(port) }),
      'bore.server.id': serverId,
    };
    const description = { name: `POST ${template}`, kind: SpanKind.CLIENT, attributes };
    return inSpan(description, () => this.post(adminUrl, order, requestId));
  }

  private async post(adminUrl: string, { tunnelId, order, body, answer }: Order, requestId: string): Promise<void> {
    const [key] = this.config.INTERNAL_API_KEY;
    const response = await fetch(new URL(`/tunnels/${tunnelId}/${order}`, adminUrl), {
      method: 'POST',
      headers: {
        ...traceHeaders(),
        'content-type': 'application/json',
        [INTERNAL_KEY_HEADER]: key?.reveal() ?? '',
        [REQUEST_ID_HEADER]: requestId,
      },
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
