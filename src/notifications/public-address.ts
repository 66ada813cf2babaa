import { lookup as resolve, type LookupAddress } from 'node:dns';
import { isIP, type LookupFunction } from 'node:net';

import ipaddr from 'ipaddr.js';

/** A target's address is one that we must not connect to. */
export class AddressRefusedError extends Error {
  override readonly name = 'AddressRefusedError';
}

/** All of IPv6 that is given to anybody in public (RFC 4291): what is mapped, translated or local lies elsewhere. */
const GLOBAL_IPV6 = ipaddr.parseCIDR('2000::/3');

/**
 * Whether notifications may be sent to an address: a public one, or one of the networks that are allowed. Not loopback, private,
 * link-local (where clouds keep metadata), shared (RFC 6598), multicast, reserved, or an IPv4 address in the dress of IPv6.
 */
export function isAllowedAddress(address: string, allowed: readonly string[]): boolean {
  if (!ipaddr.isValid(address)) return false;
  // an IPv4-mapped one is connected to as IPv4
  const parsed = ipaddr.process(address);
  const isAllowed = allowed.some((cidr) => {
    const [network, bits] = ipaddr.parseCIDR(cidr);
    return network.kind() === parsed.kind() && parsed.match(network, bits);
  });
  if (isAllowed) return true;
  if (parsed.range() !== 'unicast') return false;
  return parsed instanceof ipaddr.IPv4 || parsed.match(GLOBAL_IPV6[0], GLOBAL_IPV6[1]);
}

/** How names become addresses; `dns.lookup` but for tests. */
export type Resolve = (
  hostname: string,
  options: { readonly all: true },
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void;

/**
 * Resolves a name for a socket that is about to connect, and refuses it when one of its addresses is not allowed. What has been
 * checked is what is connected to: a name that resolves otherwise a moment later gains nothing.
 */
export function guardedLookup(allowed: readonly string[], resolver: Resolve = resolve): LookupFunction {
  return (hostname, options, callback) => {
    resolver(hostname, { ...options, all: true }, (error, addresses) => {
      const [first] = addresses ?? [];
      if (error || !first) return callback(error ?? new Error('no address'), []);
      if (!addresses.every(({ address }) => isAllowedAddress(address, allowed))) {
        return callback(new AddressRefusedError('the address is not allowed'), []);
      }
      if (options.all) callback(null, addresses);
      else callback(null, first.address, first.family);
    });
  };
}

/**
 * A socket does not resolve what is an address already: this is asked before.
 * @param hostname of a URL, IPv6 in brackets
 */
export function isRefusedLiteral(hostname: string, allowed: readonly string[]): boolean {
  const address = hostname.replace(/^\[|\]$/g, '');
  return isIP(address) !== 0 && !isAllowedAddress(address, allowed);
}
