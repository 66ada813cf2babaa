import { EventEmitter } from 'node:events';

import { Inject, Injectable } from '@nestjs/common';

import { CONFIG, type Config } from '../platform/config/config.js';
import { PlatformError } from '../platform/errors/error-register.js';
import type { SeenVersions, Versioned } from '../platform/http/etag.js';
import { cutPage, type Page } from '../platform/http/page.js';
import type { Caller } from '../platform/http/route-metadata.js';
import type { NewResource } from '../platform/idempotency/idempotency-keys.repository.js';
import { BoreServerClient } from '../servers/bore-server-client.js';
import { orderClosed } from '../servers/close-orders.js';
import {
  boreCommand,
  type OpenedTunnel,
  type OpenTunnelRequest,
  type PlacedTunnel,
  type TunnelView,
  type UpdateTunnelRequest,
  viewTunnel,
} from './tunnel.js';
import { type SettingsFields, settingsOf } from './tunnel-settings.js';
import { TunnelFencesRepository } from './tunnel-fences.repository.js';
import { TunnelKeys, tunnelToken } from './tunnel-key.js';
import { keyOfTunnel, type ListTunnelsQuery } from './tunnel-list.js';
import { type AdmissionOutcome, type NewTunnel, TunnelsRepository } from './tunnels.repository.js';

/** Capacity comes back when tunnels close or servers return: within the minute, or somebody is paged already. */
const NO_CAPACITY_RETRY_SECONDS = 30;

/** Fields of a change that a running session must hear of. */
const SETTINGS = [
  'maxConnections',
  'bandwidthMbps',
  'allowCidrs',
  'denyCidrs',
  'proxyProtocol',
  'ttlSeconds',
] as const satisfies (keyof typeof SettingsFields | 'ttlSeconds')[];

/** What asking for a tunnel came to; `failed`: nobody could decide. */
export const ADMISSION_OUTCOMES = [
  'granted',
  'user_suspended',
  'quota_exceeded',
  'no_capacity',
  'name_taken',
  'port_taken',
  'port_out_of_range',
  'failed',
] as const;
type Admitted = (typeof ADMISSION_OUTCOMES)[number];

/** Tunnels, as their owners work with them. */
@Injectable()
export class TunnelsService {
  /** Tells of each decision about a new tunnel. */
  readonly admissions = new EventEmitter<{ decided: [Admitted] }>();

  constructor(
    @Inject(CONFIG) private readonly config: Config,
    private readonly tunnels: TunnelsRepository,
    private readonly fences: TunnelFencesRepository,
    private readonly keys: TunnelKeys,
    private readonly boreServers: BoreServerClient,
  ) {}

  /**
   * Opens a tunnel under a given id; again, it answers with the one that is there.
   * @throws PlatformError VALIDATION_FAILED, QUOTA_EXCEEDED, NO_CAPACITY, NAME_TAKEN, PORT_TAKEN, PORT_OUT_OF_RANGE, ACCOUNT_SUSPENDED
   */
  async open(caller: Caller, request: OpenTunnelRequest, { id, secret }: NewResource): Promise<OpenedTunnel> {
    this.checkBandwidth(request);
    const token = tunnelToken(secret);
    const outcome = await this.admit(caller, {
      ...request,
      id,
      userId: caller.userId,
      sealedKey: this.keys.seal(token, id),
    });
    if (outcome !== 'opened' && outcome !== 'exists') throw this.refusal(outcome, caller);
    return this.opened(await this.find(caller, id), token);
  }

  /** @throws PlatformError NOT_FOUND, also for a tunnel of somebody else */
  async get(caller: Caller, id: string): Promise<Versioned<TunnelView>> {
    return this.versioned(await this.find(caller, id));
  }

  /** @throws PlatformError VALIDATION_FAILED */
  async list(caller: Caller, query: ListTunnelsQuery): Promise<Page<TunnelView>> {
    const rows = await this.tunnels.list(caller.userId, query);
    return cutPage(
      rows.map((row) => this.view(row)),
      query.limit,
      (view) => keyOfTunnel(query, view),
    );
  }

  /**
   * Changes a tunnel. New settings reach a running session before this returns, when its bore-server can be reached,
   * and with the answer to its next heartbeat when not.
   * @throws PlatformError VALIDATION_FAILED, NAME_TAKEN, PRECONDITION_FAILED, TUNNEL_CLOSED, NOT_FOUND (also for a tunnel of
   *   somebody else)
   */
  async update(
    caller: Caller,
    id: string,
    change: UpdateTunnelRequest,
    versions: SeenVersions,
  ): Promise<Versioned<TunnelView>> {
    this.checkBandwidth(change);
    const updated = await this.tunnels.update(id, caller.userId, change, versions);
    if (updated === 'name_taken') throw new PlatformError('NAME_TAKEN');
    const tunnel = await this.find(caller, id);
    if (!updated) throw new PlatformError(isOf(tunnel, versions) ? 'TUNNEL_CLOSED' : 'PRECONDITION_FAILED');
    if (SETTINGS.some((name) => change[name] !== undefined)) {
      const settings = settingsOf(tunnel, this.config.MAX_BANDWIDTH_PER_TUNNEL);
      await this.boreServers.updateTunnel({ id: tunnel.serverId, adminUrl: tunnel.server.adminUrl }, id, settings);
    }
    return this.versioned(tunnel);
  }

  /**
   * Closes a tunnel, on the wire too; one that is closed already stays so.
   * @throws PlatformError PRECONDITION_FAILED, NOT_FOUND (also for a tunnel of somebody else)
   */
  async close(caller: Caller, id: string, versions: SeenVersions): Promise<void> {
    const closed = await this.tunnels.close(id, caller.userId, 'deleted', versions);
    if (closed) return orderClosed(this.boreServers, [closed]);
    if (!isOf(await this.find(caller, id), versions)) throw new PlatformError('PRECONDITION_FAILED');
  }

  /**
   * Gives a tunnel another token. Its client, which came with the old one, is sent away, before this returns when its
   * bore-server can be reached, and with the answer to its next heartbeat when not.
   * @throws PlatformError TUNNEL_CLOSED, NOT_FOUND (also for a tunnel of somebody else)
   */
  async rotateToken(caller: Caller, id: string): Promise<OpenedTunnel> {
    const token = tunnelToken();
    const fence = await this.fences.rotate(id, caller.userId, this.keys.seal(token, id));
    const tunnel = await this.find(caller, id);
    if (!fence) throw new PlatformError('TUNNEL_CLOSED');
    await this.boreServers.fenceTunnel({ id: fence.serverId, adminUrl: fence.adminUrl }, fence);
    return this.opened(tunnel, token);
  }

  /**
   * Sends the client away that carries a tunnel now, and its visitors; it may come back. Nothing happens when there is none.
   * @throws PlatformError NOT_FOUND, also for a tunnel of somebody else
   */
  async disconnect(caller: Caller, id: string): Promise<void> {
    const fence = await this.fences.disconnect(id, caller.userId);
    if (!fence) return void (await this.find(caller, id));
    await this.boreServers.fenceTunnel({ id: fence.serverId, adminUrl: fence.adminUrl }, fence);
  }

  /** Closes what has expired or was abandoned, at most `limit` of each; returns how many. */
  async closeDue(limit: number): Promise<number> {
    const closed = [...(await this.tunnels.closeExpired(limit)), ...(await this.tunnels.closeAbandoned(limit))];
    await orderClosed(this.boreServers, closed);
    return closed.length;
  }

  private async admit(caller: Caller, tunnel: NewTunnel): Promise<AdmissionOutcome> {
    try {
      const outcome = await this.tunnels.open(tunnel, {
        userTunnels: this.planLimit(caller),
        useReserve: caller.role === 'admin',
        avoidServers: this.boreServers.unreachable(),
      });
      // a repeated request was decided when it came first
      if (outcome !== 'exists') this.admissions.emit('decided', outcome === 'opened' ? 'granted' : outcome);
      return outcome;
    } catch (error) {
      this.admissions.emit('decided', 'failed');
      throw error;
    }
  }

  /** @throws PlatformError NOT_FOUND, also for a tunnel of somebody else */
  private async find(caller: Caller, id: string): Promise<PlacedTunnel> {
    const tunnel = await this.tunnels.find(id, caller.userId);
    if (!tunnel) throw new PlatformError('NOT_FOUND');
    return tunnel;
  }

  private opened(tunnel: PlacedTunnel, token: string): OpenedTunnel {
    const view = this.view(tunnel);
    return { ...view, token, command: boreCommand(view, token) };
  }

  private versioned(tunnel: PlacedTunnel): Versioned<TunnelView> {
    return { version: tunnel.version, view: this.view(tunnel) };
  }

  private view(tunnel: PlacedTunnel): TunnelView {
    return viewTunnel(tunnel, this.config.MAX_BANDWIDTH_PER_TUNNEL);
  }

  /** @throws PlatformError VALIDATION_FAILED */
  private checkBandwidth({ bandwidthMbps }: { bandwidthMbps?: number | null | undefined }): void {
    const max = this.config.MAX_BANDWIDTH_PER_TUNNEL;
    if (bandwidthMbps == null || bandwidthMbps <= max) return;
    throw new PlatformError('VALIDATION_FAILED', {
      errors: [{ path: 'bandwidthMbps', message: `must be at most ${max}, the limit of each tunnel here` }],
    });
  }

  private planLimit({ plan }: Caller): number {
    const limits = {
      free: this.config.PLAN_FREE_TUNNELS,
      pro: this.config.PLAN_PRO_TUNNELS,
      enterprise: this.config.PLAN_ENTERPRISE_TUNNELS,
    };
    return limits[plan];
  }

  private refusal(outcome: Exclude<AdmissionOutcome, 'opened' | 'exists'>, caller: Caller): PlatformError {
    switch (outcome) {
      case 'user_suspended':
        return new PlatformError('ACCOUNT_SUSPENDED');
      case 'quota_exceeded':
        return new PlatformError('QUOTA_EXCEEDED', {
          detail: `The plan ${caller.plan} allows ${this.planLimit(caller)} open tunnels`,
        });
      case 'name_taken':
        return new PlatformError('NAME_TAKEN');
      case 'port_taken':
        return new PlatformError('PORT_TAKEN');
      case 'port_out_of_range':
        return new PlatformError('PORT_OUT_OF_RANGE');
      case 'no_capacity':
        return new PlatformError('NO_CAPACITY', { retryAfter: NO_CAPACITY_RETRY_SECONDS });
    }
  }
}

function isOf({ version }: PlacedTunnel, versions: SeenVersions): boolean {
  return versions?.includes(version) ?? true;
}
