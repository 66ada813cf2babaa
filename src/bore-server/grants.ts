import { z } from 'zod';

import { verifyAnswer } from '../protocol/challenge.js';
import { type Fence, Grant } from '../protocol/plane-api.js';
import { type TunnelSettings } from '../protocol/tunnel-settings.js';

/** A grant, and until when it is good without the control plane. */
export const KeptGrant = z.object({ grant: Grant, goodUntil: z.number() });
export type KeptGrant = z.infer<typeof KeptGrant>;

/** A client's answer to a challenge, and the port it asked for; 0: whichever. */
interface Answer {
  readonly port: number;
  readonly challenge: string;
  readonly tag: string;
}

/**
 * Grants that the control plane has given, for the time when it is not there (G2): a client that was authorised, or was
 * connected, not longer ago than the time to live may come back.
 *
 * At most one for each public port: the newest.
 */
export class Grants {
  private readonly byPort = new Map<number, KeptGrant>();

  /** @param onChange called when what should be kept on disk has changed */
  constructor(
    kept: readonly KeptGrant[],
    private readonly ttlMs: number,
    private readonly onChange: () => void,
  ) {
    for (const entry of kept) this.byPort.set(entry.grant.port, entry);
  }

  /** What is good now. */
  kept(now = Date.now()): KeptGrant[] {
    return [...this.byPort.values()].filter(({ goodUntil }) => goodUntil > now);
  }

  /** The control plane has given a grant; one that was asked for under an older key and comes late is left out. */
  put(grant: Grant, now = Date.now()): void {
    const known = this.byPort.get(grant.port)?.grant;
    if (known?.tunnelId === grant.tunnelId && known.keyVersion > grant.keyVersion) return;
    this.byPort.set(grant.port, { grant, goodUntil: now + this.ttlMs });
    this.onChange();
  }

  /** The control plane agrees that these tunnels are carried here. */
  confirm(tunnelIds: ReadonlySet<string>, now = Date.now()): void {
    for (const entry of this.byPort.values()) {
      if (tunnelIds.has(entry.grant.tunnelId)) entry.goodUntil = now + this.ttlMs;
      else if (entry.goodUntil <= now) this.byPort.delete(entry.grant.port);
    }
    this.onChange();
  }

  updateSettings(tunnelId: string, settings: TunnelSettings): void {
    const entry = this.find(tunnelId);
    if (!entry || entry.grant.settings.version > settings.version) return;
    const { expiresAt = entry.grant.expiresAt } = settings;
    entry.grant = { ...entry.grant, settings, expiresAt };
    this.onChange();
  }

  /** Whatever was let in under an older key is over: the tunnel was closed, or its token rotated. */
  fence({ tunnelId, keyVersion }: Fence): void {
    const entry = this.find(tunnelId);
    if (!entry || entry.grant.keyVersion >= keyVersion) return;
    this.byPort.delete(entry.grant.port);
    this.onChange();
  }

  /**
   * Authorises a client without the control plane: a new session of a tunnel whose grant is still good. `undefined` when
   * no such tunnel answers to the port and the secret.
   * @param sessionId names the session that begins, as the control plane may have heard it
   */
  authorize(answer: Answer, sessionId: string, now = Date.now()): Grant | undefined {
    const entry = this.answering(answer, now);
    if (!entry || (entry.grant.expiresAt !== null && Date.parse(entry.grant.expiresAt) <= now)) return undefined;
    entry.grant = { ...entry.grant, sessionId, epoch: entry.grant.epoch + 1 };
    this.onChange();
    return entry.grant;
  }

  /** The control plane has refused whoever gave this answer. */
  forgetAnswering(answer: Answer, now = Date.now()): void {
    const entry = this.answering(answer, now);
    if (!entry) return;
    this.byPort.delete(entry.grant.port);
    this.onChange();
  }

  private answering({ port, challenge, tag }: Answer, now: number): KeptGrant | undefined {
    return this.kept(now).find(
      ({ grant }) => (port === 0 || grant.port === port) && verifyAnswer(Buffer.from(grant.key, 'hex'), challenge, tag),
    );
  }

  private find(tunnelId: string): KeptGrant | undefined {
    return [...this.byPort.values()].find(({ grant }) => grant.tunnelId === tunnelId);
  }
}
