import { normalizeIp } from '@nestjs/throttler';

import { addressOf } from '../http/request-address.js';

/** Who gets an IPv6 line gets so much of the address, and may use the rest as they like. */
const IPV6_PREFIX = 64;

/**
 * The address that a caller's limits are counted by: an IPv6 one by its /64, a mapped IPv4 one as IPv4. What is no address,
 * as a trusted proxy may write into `X-Forwarded-For`, counts as one caller: it must not become a new one each time.
 */
export function limitedAddressOf(ip: string): string {
  const address = addressOf(ip);
  return address ? normalizeIp(address, IPV6_PREFIX) : 'unknown';
}
