import { z } from 'zod';

import type { Server, Tunnel } from '../platform/database/generated/client.js';
import { ProxyProtocol, TunnelState } from '../platform/database/generated/enums.js';
import { ListenPort, Location } from '../protocol/plane-api.js';
import { GivenLabels, Labels } from './labels.js';
import { effectiveBandwidth, SettingsFields } from './tunnel-settings.js';

/** A year: longer than any tunnel should live without somebody asking for it again. */
const TTL_SECONDS_MAX = 31_536_000;

/** A tunnel's name: unique among its owner's open tunnels, and fit for a file name or a DNS label. */
export const TunnelName = z
  .string()
  .regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, 'lower-case letters, digits and dashes, at most 63');

const TtlSeconds = z.int().min(1).max(TTL_SECONDS_MAX).describe('The tunnel closes itself after this time');

const Relocate = z
  .boolean()
  .describe(
    'Whether it may move to another bore-server, and another port, when its own is lost: for clients that follow, as borectl',
  );

export const OpenTunnelRequest = z.strictObject({
  name: TunnelName.optional(),
  localPort: ListenPort.optional().describe('What it will forward to; only shown back and put into the command'),
  location: Location.optional().describe('Preferred; another is taken when this one is full'),
  port: ListenPort.optional().describe('Public port; any free one when left out'),
  ttlSeconds: TtlSeconds.optional(),
  maxConnections: SettingsFields.maxConnections.optional(),
  bandwidthMbps: SettingsFields.bandwidthMbps.optional(),
  allowCidrs: SettingsFields.allowCidrs.optional(),
  denyCidrs: SettingsFields.denyCidrs.optional(),
  proxyProtocol: SettingsFields.proxyProtocol.optional(),
  labels: GivenLabels.optional(),
  relocate: Relocate.optional(),
});
export type OpenTunnelRequest = z.output<typeof OpenTunnelRequest>;

/** What is left out stays; null returns to the default. */
export const UpdateTunnelRequest = z.strictObject({
  name: TunnelName.nullable().optional(),
  ttlSeconds: TtlSeconds.nullable().optional().describe('From now; null: the tunnel does not close itself'),
  maxConnections: SettingsFields.maxConnections.nullable().optional(),
  bandwidthMbps: SettingsFields.bandwidthMbps.nullable().optional(),
  allowCidrs: SettingsFields.allowCidrs.optional(),
  denyCidrs: SettingsFields.denyCidrs.optional(),
  proxyProtocol: SettingsFields.proxyProtocol.nullable().optional(),
  labels: GivenLabels.optional().describe('All of them: what is not in it is taken off'),
  relocate: Relocate.optional(),
});
export type UpdateTunnelRequest = z.output<typeof UpdateTunnelRequest>;

/** A tunnel as its owner sees it. */
export const TunnelView = z.object({
  id: z.guid(),
  name: z.string().nullable(),
  labels: Labels,
  state: z.enum(TunnelState),
  closeReason: z.string().nullable(),
  host: z.string(),
  controlPort: z.int(),
  port: z.int().describe('Public port'),
  publicAddress: z.string(),
  location: z.string(),
  serverId: z.string(),
  localPort: z.int().nullable(),
  maxConnections: z.int().nullable().describe('null: the limit of the bore-server'),
  bandwidthMbps: z.int().describe('Mbit/s, both directions added'),
  allowCidrs: z.array(z.string()),
  denyCidrs: z.array(z.string()),
  proxyProtocol: z.enum(ProxyProtocol).nullable(),
  relocate: z.boolean(),
  clientAddress: z.string().nullable().describe('Of the client that carries it, or carried it last'),
  connectedAt: z.iso.datetime().nullable(),
  expiresAt: z.iso.datetime().nullable(),
  createdAt: z.iso.datetime(),
  closedAt: z.iso.datetime().nullable(),
});
export type TunnelView = z.infer<typeof TunnelView>;

/** A tunnel just opened, or whose token was rotated: the only time that the token is shown. */
export const OpenedTunnel = TunnelView.extend({
  token: z.string().describe('Secret of the tunnel; not shown again'),
  command: z.string().describe('Carries the tunnel with a stock bore client'),
});
export type OpenedTunnel = z.infer<typeof OpenedTunnel>;

/** A row with the server it is placed on. */
export type PlacedTunnel = Tunnel & { server: Pick<Server, 'host' | 'port' | 'location' | 'adminUrl'> };

/** `bandwidthMax`: MAX_BANDWIDTH_PER_TUNNEL. */
export function viewTunnel(tunnel: PlacedTunnel, bandwidthMax: number): TunnelView {
  const { host, port: controlPort, location } = tunnel.server;
  return {
    id: tunnel.id,
    name: tunnel.name,
    labels: Labels.parse(tunnel.labels),
    state: tunnel.state,
    closeReason: tunnel.closeReason,
    host,
    controlPort,
    port: tunnel.port,
    publicAddress: `${host.includes(':') ? `[${host}]` : host}:${tunnel.port}`,
    location,
    serverId: tunnel.serverId,
    localPort: tunnel.localPort,
    maxConnections: tunnel.maxConnections,
    bandwidthMbps: effectiveBandwidth(tunnel.bandwidthMbps, bandwidthMax),
    allowCidrs: tunnel.allowCidrs,
    denyCidrs: tunnel.denyCidrs,
    proxyProtocol: tunnel.proxyProtocol,
    relocate: tunnel.relocate,
    clientAddress: tunnel.clientAddress,
    connectedAt: tunnel.connectedAt?.toISOString() ?? null,
    expiresAt: tunnel.expiresAt?.toISOString() ?? null,
    createdAt: tunnel.createdAt.toISOString(),
    closedAt: tunnel.closedAt?.toISOString() ?? null,
  };
}

/** The line that carries a tunnel with a stock bore client. */
export function boreCommand(tunnel: TunnelView, token: string): string {
  return `bore local ${tunnel.localPort ?? '<local port>'} --to ${tunnel.host} --port ${tunnel.port} --secret ${token}`;
}
