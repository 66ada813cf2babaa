import { z } from 'zod';

import type { Tunnel } from '../platform/database/generated/client.js';
import { ProxyProtocol } from '../platform/database/generated/enums.js';
import { Cidr, CIDRS_MAX, type TunnelSettings } from '../protocol/tunnel-settings.js';

/** The server's own limit comes first in practice: it has 65,535 ports towards each visitor's address. */
const MAX_CONNECTIONS_MAX = 65_535;
/** Tbit/s; what counts is MAX_BANDWIDTH_PER_TUNNEL. */
const BANDWIDTH_MBPS_MAX = 1_000_000;

const Networks = z
  .array(Cidr)
  .max(CIDRS_MAX)
  .transform((networks) => [...new Set(networks.map(canonicalNetwork))]);

/** What an owner decides about a tunnel's visitors, when opening it and later. */
export const SettingsFields = {
  maxConnections: z.int().min(1).max(MAX_CONNECTIONS_MAX).describe('Visitor connections at once'),
  bandwidthMbps: z.int().min(1).max(BANDWIDTH_MBPS_MAX).describe('Mbit/s, both directions added'),
  allowCidrs: Networks.describe('Networks that may visit; empty: everybody'),
  denyCidrs: Networks.describe('Networks that may not, though allowed'),
  proxyProtocol: z
    .enum(ProxyProtocol)
    .describe(
      'Each stream begins with a PROXY protocol header of this version, so that the local service sees its visitor',
    ),
};

/** The columns of a tunnel that are its settings. */
export type SettingsRow = Pick<
  Tunnel,
  'maxConnections' | 'bandwidthMbps' | 'allowCidrs' | 'denyCidrs' | 'proxyProtocol' | 'settingsVersion' | 'expiresAt'
>;

/** Settings as bore-servers enforce them. `bandwidthMax`: MAX_BANDWIDTH_PER_TUNNEL. */
export function settingsOf(row: SettingsRow, bandwidthMax: number): TunnelSettings {
  return {
    version: row.settingsVersion,
    maxConnections: row.maxConnections,
    bandwidthMbps: effectiveBandwidth(row.bandwidthMbps, bandwidthMax),
    allowCidrs: row.allowCidrs,
    denyCidrs: row.denyCidrs,
    proxyProtocol: row.proxyProtocol,
    expiresAt: row.expiresAt?.toISOString() ?? null,
  };
}

/** The operator's limit holds for tunnels that name none, and for those that were opened before it was lowered. */
export function effectiveBandwidth(asked: number | null, bandwidthMax: number): number {
  return Math.min(asked ?? bandwidthMax, bandwidthMax);
}

/** `::ffff:0:0/96`, in which every IPv4 address can be written as an IPv6 one, as the URL parser spells it. */
const MAPPED = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/;
const MAPPED_PREFIX = 96;

/**
 * One spelling for each address, so that a list shows what it holds and a network stands in it once. Host bits stay. A network of
 * mapped IPv4 addresses becomes the IPv4 one: bore-servers keep the families apart, and it would be nobody's.
 */
function canonicalNetwork(network: string): string {
  const [address = '', prefix = ''] = network.split('/');
  // the URL parser writes IPv6 as RFC 5952 asks: lower case, zeros compressed
  const spelled = address.includes(':') ? new URL(`http://[${address}]`).hostname.slice(1, -1) : address;
  const [, high, low] = MAPPED.exec(spelled) ?? [];
  if (high === undefined || low === undefined || Number(prefix) < MAPPED_PREFIX) return `${spelled}/${Number(prefix)}`;
  const octets = [high, low].flatMap((pair) => [Number.parseInt(pair, 16) >> 8, Number.parseInt(pair, 16) & 255]);
  return `${octets.join('.')}/${Number(prefix) - MAPPED_PREFIX}`;
}
