import { isIP } from 'node:net';

/**
 * The address of a caller, without a zone (`%eth0`), which is the sender's own word; null when it is none: a trusted proxy may pass
 * on whatever a caller wrote into `X-Forwarded-For`.
 */
export function addressOf(ip: string | undefined): string | null {
  const address = ip?.split('%', 1)[0] ?? '';
  return isIP(address) ? address : null;
}
