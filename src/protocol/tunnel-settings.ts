/** What the owner of a tunnel may decide about its visitors, as both planes know it. */
import { z } from 'zod';

/** An IPv4 or IPv6 network in CIDR notation. */
export const Cidr = z.union([z.cidrv4(), z.cidrv6()]).describe('A network, such as 192.0.2.0/24 or 2001:db8::/32');

/** Networks in one list: each visitor is checked against all of them. */
export const CIDRS_MAX = 100;

/** What the owner of a tunnel decided about its visitors. Changes reach a running session without ending it. */
export const TunnelSettings = z.object({
  /** Grows with each change. */
  version: z.int().min(0),
  /** Visitor connections at once; null: the server's own limit. */
  maxConnections: z.int().min(1).nullable(),
  /** Mbit/s, both directions added; null: the server's own limit. */
  bandwidthMbps: z.int().min(1).nullable(),
  /** Who may visit; empty: everybody. */
  allowCidrs: z.array(Cidr).max(CIDRS_MAX),
  /** Who may not, though allowed. */
  denyCidrs: z.array(Cidr).max(CIDRS_MAX),
  /** Version of the PROXY protocol header that begins each stream, so that the local service sees the visitor's address. */
  proxyProtocol: z.enum(['v1', 'v2']).nullable(),
  /** When the tunnel's time to live ends; null: never. Backends of older releases leave it out: as it was. */
  expiresAt: z.iso.datetime().nullable().optional(),
});
export type TunnelSettings = z.infer<typeof TunnelSettings>;
