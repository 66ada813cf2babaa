import type { Grant } from '../protocol/plane-api.js';
import type { TunnelSettings } from '../protocol/tunnel-settings.js';
import { Bandwidth } from './bandwidth.js';
import type { Authority } from './fences.js';
import type { Limits } from './limits.js';
import type { PublicPort } from './public-port.js';
import type { TunnelSession } from './tunnel-session.js';
import { VisitorPolicy } from './visitor-policy.js';
import type { Visitor } from './visitor.js';

/**
 * A tunnel on this server. It outlives a client session while visitors are still carried: a client may lose its control
 * connection and come back without its streams noticing.
 */
export class Tunnel {
  readonly id: string;
  /** HMAC key of the wire protocol: whoever answers to it may carry the tunnel and fetch its visitors. */
  key: Buffer;
  readonly bandwidth = new Bandwidth(null);
  /** How the client was let in that carries it now, or carried it last. */
  authority: Authority;
  /** When its client last came for a visitor, in the time of `performance.now()`. */
  lastFetchedAt = 0;
  /** The client that carries it now. */
  session: TunnelSession | undefined;
  /** Open while there is a session. */
  publicPort: PublicPort | undefined;
  /** Visitors that the client has not fetched yet, by connection id; at most `maxWaitingPerTunnel`. */
  readonly waiting = new Map<string, Visitor>();
  /** Visitors whose stream runs; with those who wait at most {@link maxVisitors}. */
  readonly carried = new Set<Visitor>();
  private settings: TunnelSettings;
  private policy: VisitorPolicy;

  constructor(
    grant: Grant,
    private readonly limits: Limits,
  ) {
    this.id = grant.tunnelId;
    this.key = Buffer.from(grant.key, 'hex');
    this.authority = { epoch: grant.epoch, keyVersion: grant.keyVersion };
    this.settings = { ...grant.settings, expiresAt: grant.expiresAt };
    this.policy = policyOf(grant.settings);
    this.applyBandwidth();
  }

  get settingsVersion(): number {
    return this.settings.version;
  }

  get maxVisitors(): number {
    return this.settings.maxConnections ?? this.limits.maxConnectionsPerTunnel;
  }

  get proxyProtocol(): TunnelSettings['proxyProtocol'] {
    return this.settings.proxyProtocol;
  }

  /** Visitors waiting or carried. */
  get visitors(): number {
    return this.waiting.size + this.carried.size;
  }

  /** Whether nothing is left of it. */
  get isIdle(): boolean {
    return this.session === undefined && this.visitors === 0;
  }

  /** Whether the owner lets this address visit. */
  allows(address: string): boolean {
    return this.policy.allows(address);
  }

  /** Whether its time to live ended before `time` (of `Date.now()`). */
  hasExpiredBefore(time: number): boolean {
    return this.settings.expiresAt != null && Date.parse(this.settings.expiresAt) < time;
  }

  /** A client was let in: from here on its key counts. */
  admit(grant: Grant): void {
    this.key = Buffer.from(grant.key, 'hex');
    this.authority = { epoch: grant.epoch, keyVersion: grant.keyVersion };
    this.update({ ...grant.settings, expiresAt: grant.expiresAt });
  }

  /** Takes settings over, unless they are older than those in force. */
  update(settings: TunnelSettings): void {
    if (settings.version < this.settings.version) return;
    const { expiresAt = this.settings.expiresAt } = settings;
    this.settings = { ...settings, expiresAt };
    this.policy = policyOf(settings);
    this.applyBandwidth();
  }

  private applyBandwidth(): void {
    const { bandwidthMbpsPerTunnel } = this.limits;
    this.bandwidth.set(this.settings.bandwidthMbps ?? (bandwidthMbpsPerTunnel > 0 ? bandwidthMbpsPerTunnel : null));
  }
}

function policyOf({ allowCidrs, denyCidrs }: TunnelSettings): VisitorPolicy {
  return new VisitorPolicy(allowCidrs, denyCidrs);
}
