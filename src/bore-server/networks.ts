import { BlockList, isIPv6 } from 'node:net';

/**
 * An address without what only this machine knows: `::ffff:192.0.2.1`, as a dual-stack socket writes it, is the IPv4 address,
 * and of `fe80::1%eth0` the interface is left out.
 */
export function unmapped(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, '').replace(/%.*$/, '');
}

/** A set of networks. The two families are apart: `::/0` is every IPv6 address, and no IPv4 address. */
export class Networks {
  private readonly ipv4 = new BlockList();
  private readonly ipv6 = new BlockList();

  /** @param cidrs in CIDR notation */
  constructor(cidrs: readonly string[]) {
    for (const cidr of cidrs) {
      const [address = '', prefix] = cidr.split('/');
      if (isIPv6(address)) this.ipv6.addSubnet(address, Number(prefix), 'ipv6');
      else this.ipv4.addSubnet(address, Number(prefix), 'ipv4');
    }
  }

  has(address: string): boolean {
    const plain = unmapped(address);
    return isIPv6(plain) ? this.ipv6.check(plain, 'ipv6') : this.ipv4.check(plain, 'ipv4');
  }
}
