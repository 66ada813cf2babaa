import { Networks } from './networks.js';

/** Who may visit a tunnel: everybody, or only from some networks, and not from others. */
export class VisitorPolicy {
  private readonly allow: Networks | undefined;
  private readonly deny: Networks;

  /** @param allowCidrs networks in CIDR notation; none: everybody is allowed */
  constructor(allowCidrs: readonly string[], denyCidrs: readonly string[]) {
    this.allow = allowCidrs.length === 0 ? undefined : new Networks(allowCidrs);
    this.deny = new Networks(denyCidrs);
  }

  allows(address: string): boolean {
    return !this.deny.has(address) && (this.allow?.has(address) ?? true);
  }
}
