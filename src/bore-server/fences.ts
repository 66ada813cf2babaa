import { type Fence, FENCE_ALL, type SessionEndReason } from '../protocol/plane-api.js';
import { FENCES_MAX } from './limits.js';

/** How a client was let in: by which session of its tunnel, and under which of the tunnel's keys. */
export interface Authority {
  readonly epoch: number;
  readonly keyVersion: number;
}

/** The fence that ends everything of a tunnel. */
export function closing(tunnelId: string, reason: string): Fence {
  return { tunnelId, epoch: FENCE_ALL, keyVersion: FENCE_ALL, reason };
}

/** Whether a fence ends what was let in so. */
export function isBehind({ epoch, keyVersion }: Authority, fence: Fence): boolean {
  return epoch <= fence.epoch || keyVersion < fence.keyVersion;
}

/** Whether somebody was let in before somebody else of the same tunnel: a newer key counts for more than a later session. */
export function isOlder(one: Authority, other: Authority): boolean {
  return one.keyVersion === other.keyVersion ? one.epoch < other.epoch : one.keyVersion < other.keyVersion;
}

/** How a session ends that is behind a fence, and what its client is told. */
export function sessionEndOf({ reason }: Fence): [SessionEndReason, string] {
  if (reason === 'token_rotated') return [reason, 'the token of this tunnel was rotated'];
  if (reason === 'disconnected') return [reason, 'disconnected by the owner of this tunnel'];
  return ['ordered', `tunnel closed: ${reason}`];
}

/** Fences that were just put up: what the control plane had granted before must not come in behind them. */
export class Fences {
  /** The latest of each tunnel; times are those of `performance.now()`, the oldest first. */
  private readonly latest = new Map<string, { readonly at: number; readonly fence: Fence }>();

  add(fence: Fence): void {
    this.latest.delete(fence.tunnelId);
    this.latest.set(fence.tunnelId, { at: performance.now(), fence });
    const [oldest] = this.latest.keys();
    if (this.latest.size > FENCES_MAX && oldest !== undefined) this.latest.delete(oldest);
  }

  /** The fence, put up since `askedAt`, that a grant which was asked for then is behind. */
  against(tunnelId: string, authority: Authority, askedAt: number): Fence | undefined {
    const { at, fence } = this.latest.get(tunnelId) ?? {};
    return fence && at !== undefined && at >= askedAt && isBehind(authority, fence) ? fence : undefined;
  }
}
