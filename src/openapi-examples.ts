/**
 * What the bodies of the API look like, for readers of OpenAPI: each schema gets a name, under which it stands once among
 * the document's components, and an example. A test holds every example to its schema, and every body to an example.
 */
import { z } from 'zod';

import { AuditEntryView } from './audit/audit-entry.js';
import { ApiKeyView, CreateApiKeyRequest, CreatedApiKey } from './auth/api-key.schemas.js';
import { ChangePasswordRequest, LoginRequest, RefreshRequest, SignupRequest, TokenPair } from './auth/auth.schemas.js';
import { SessionView } from './auth/session.js';
import { CapacityView } from './capacity/capacity.js';
import { AdminCapacityView, FleetView, ServerLoad } from './capacity/fleet.js';
import { EventView } from './events/event.js';
import { BreakerStatsView, ResetBreakersAnswer, ResetBreakersRequest } from './servers/breaker.js';
import { CreateServerRequest, ServerView, UpdateServerRequest } from './servers/server.js';
import { AdminTunnelView, SuspendTunnelRequest } from './tunnels/admin-tunnel.js';
import { ClientSessionView } from './tunnels/client-session.js';
import { ConnectionView } from './tunnels/connection.js';
import { QuarantinedPortView } from './tunnels/quarantine.js';
import { OpenedTunnel, OpenTunnelRequest, TunnelView, UpdateTunnelRequest } from './tunnels/tunnel.js';
import { UsageView } from './tunnels/usage.js';
import { AdminUserView, UpdateUserRequest } from './users/admin-user.js';
import { UserView } from './users/user.js';

const [USER, TUNNEL, OTHER] = [
  '0199d3a0-7c3e-7cc1-b2a3-6f2f4e1d9c55',
  '0199d3a1-02f4-7b0e-9d57-3c1a5be0f7a2',
  '0199d3a1-9e60-7f6c-8a41-d02c94b1e6f3',
];
const [EARLIER, NOW, LATER] = ['2026-11-24T08:30:00.000Z', '2026-11-25T09:00:00.000Z', '2026-12-25T09:00:00.000Z'];
const ADDRESS = '203.0.113.7';
const CREDENTIALS = { email: 'ada@example.com', password: 'a long one of your own' };

const user = { id: USER, email: CREDENTIALS.email, name: 'Ada', role: 'user', plan: 'pro' } as const;
const tunnel: TunnelView = {
  id: TUNNEL,
  name: 'web',
  labels: { team: 'billing' },
  state: 'active',
  closeReason: null,
  host: 'eu.tunnels.example.com',
  controlPort: 7835,
  port: 10_042,
  publicAddress: 'eu.tunnels.example.com:10042',
  location: 'eu-central',
  serverId: 'eu-1',
  localPort: 8080,
  maxConnections: null,
  bandwidthMbps: 100,
  allowCidrs: ['198.51.100.0/24'],
  denyCidrs: [],
  proxyProtocol: null,
  relocate: true,
  clientAddress: ADDRESS,
  connectedAt: NOW,
  expiresAt: LATER,
  createdAt: EARLIER,
  closedAt: null,
};
const apiKey: ApiKeyView = {
  id: OTHER,
  name: 'deploy',
  scopes: ['tunnels:read', 'tunnels:write'],
  createdAt: EARLIER,
  lastUsedAt: NOW,
  expiresAt: LATER,
  revokedAt: null,
};
const load = {
  openTunnels: 42,
  maxConcurrentTunnels: 100,
  connections: 310,
  bandwidthMbps: 87.5,
  maxBandwidthMbps: 1000,
};
const announced = { id: 'eu-1', host: 'eu.tunnels.example.com', port: 7835, location: 'eu-central' };
const server: ServerView = {
  ...announced,
  state: 'online',
  drainRequested: false,
  portRange: { min: 10_000, max: 10_999 },
  heartbeatAt: NOW,
  createdAt: EARLIER,
  maxConcurrentTunnelsSet: 100,
  version: 3,
  ...load,
};
const serverLoad: ServerLoad = {
  id: 'eu-1',
  location: 'eu-central',
  state: 'online',
  drainRequested: false,
  leaseSeconds: 12.5,
  heartbeatAt: NOW,
  score: 0.42,
  reachable: true,
  ...load,
};
const figures = { bytesIn: 1_048_576, bytesOut: 73_400_320, connections: 310 };

/** By the name that the schema has in the document. */
export const EXAMPLES = new Map<string, unknown>();

/** Names a schema and gives an example of what it takes or shows. */
export function document<T extends z.ZodType>(id: string, schema: T, example: z.input<T>): void {
  // not among Zod's own metadata: that of a schema with a transformation is left out of what a request may be
  z.globalRegistry.add(schema, { ...z.globalRegistry.get(schema), id });
  EXAMPLES.set(id, example);
}

document('User', UserView, user);
document('SignupRequest', SignupRequest, { ...CREDENTIALS, name: 'Ada' });
document('LoginRequest', LoginRequest, CREDENTIALS);
document('RefreshRequest', RefreshRequest, { refreshToken: 'rt_…' });
document('ChangePasswordRequest', ChangePasswordRequest, {
  currentPassword: 'a long one',
  newPassword: 'another long one',
});
document('TokenPair', TokenPair, { accessToken: 'eyJ…', refreshToken: 'rt_…', expiresIn: 900, user });
document('Session', SessionView, {
  id: OTHER,
  createdAt: EARLIER,
  lastUsedAt: NOW,
  expiresAt: LATER,
  userAgent: 'borectl',
  clientAddress: ADDRESS,
  current: true,
});
document('ApiKey', ApiKeyView, apiKey);
document('CreateApiKeyRequest', CreateApiKeyRequest, { name: 'deploy', scopes: ['tunnels:read', 'tunnels:write'] });
document('CreatedApiKey', CreatedApiKey, { ...apiKey, key: 'bk_…' });

document('Tunnel', TunnelView, tunnel);
document('OpenTunnelRequest', OpenTunnelRequest, {
  name: 'web',
  localPort: 8080,
  ttlSeconds: 86_400,
  labels: { team: 'billing' },
});
document('OpenedTunnel', OpenedTunnel, {
  ...tunnel,
  state: 'pending',
  token: 'tk_…',
  command: 'bore local 8080 --to eu.tunnels.example.com --port 10042 --secret tk_…',
});
document('UpdateTunnelRequest', UpdateTunnelRequest, { bandwidthMbps: 20, allowCidrs: ['198.51.100.0/24'] });
document('ClientSession', ClientSessionView, {
  id: OTHER,
  epoch: 2,
  serverId: 'eu-1',
  clientAddress: ADDRESS,
  connectedAt: NOW,
  disconnectedAt: null,
});
document('Connection', ConnectionView, {
  id: OTHER,
  visitorAddress: '198.51.100.23',
  visitorPort: 50_112,
  startedAt: EARLIER,
  endedAt: NOW,
  setupMs: 3.2,
  bytesIn: 512,
  bytesOut: 40_960,
  reason: 'visitor_closed',
});
document('Usage', UsageView, { total: figures, buckets: [{ start: EARLIER, ...figures }] });
document('Capacity', CapacityView, {
  capacity: 400,
  open: 42,
  free: 358,
  locations: [{ location: 'eu-central', servers: 4, free: 358 }],
});

document('Server', ServerView, server);
document('CreateServerRequest', CreateServerRequest, { ...announced, maxConcurrentTunnels: 100 });
document('UpdateServerRequest', UpdateServerRequest, { maxConcurrentTunnels: 200 });
document('AdminUser', AdminUserView, {
  ...user,
  suspendedAt: null,
  suspendedReason: null,
  openTunnels: 2,
  createdAt: EARLIER,
  version: 1,
});
document('UpdateUserRequest', UpdateUserRequest, {
  suspended: { reason: 'phishing page reported', quarantineHours: 72 },
});
document('AdminTunnel', AdminTunnelView, { ...tunnel, userId: USER, ownerEmail: user.email });
document('SuspendTunnelRequest', SuspendTunnelRequest, { reason: 'phishing page reported', suspendUser: true });
document('QuarantinedPort', QuarantinedPortView, {
  serverId: 'eu-1',
  port: 10_042,
  until: LATER,
  reason: 'phishing page reported',
  tunnelId: TUNNEL,
  userId: USER,
  createdBy: OTHER,
  createdAt: NOW,
});
document('AuditEntry', AuditEntryView, {
  id: '4711',
  at: NOW,
  action: 'user.suspended',
  actorId: OTHER,
  actorEmail: 'grace@example.com',
  apiKeyId: null,
  targetType: 'user',
  targetId: USER,
  userId: USER,
  clientAddress: ADDRESS,
  userAgent: 'curl/8.10.1',
  requestId: 'a3c1f0d2-5b7e-4c9a-8e21-7d94c6b0f1ea',
  details: { reason: 'phishing page reported' },
});
const { name, labels, state, closeReason, serverId, host, port, clientAddress, connectedAt, expiresAt } = tunnel;
const data = { name, labels, state, closeReason, serverId, host, port, clientAddress, connectedAt, expiresAt };
document('Event', EventView, { id: '4712', type: 'tunnel.active', at: NOW, tunnelId: TUNNEL, data });
document('ServerLoad', ServerLoad, serverLoad);
document('AdminCapacity', AdminCapacityView, {
  total: 500,
  reserved: 100,
  open: 42,
  free: 358,
  utilizationPercent: 8.4,
  locations: [{ location: 'eu-central', servers: 1, capacity: 100, open: 42, utilizationPercent: 42 }],
  servers: [serverLoad],
  truncated: false,
});
document('Fleet', FleetView, {
  servers: { online: 4, draining: 1, offline: 0, disabled: 0 },
  tunnels: { pending: 3, active: 38, offline: 1 },
  connections: 310,
  bandwidthMbps: 87.5,
  items: [serverLoad],
  truncated: false,
});
document('BreakerStats', BreakerStatsView, {
  backends: [OTHER],
  breakers: [
    {
      serverId: 'eu-1',
      state: 'closed',
      stats: { calls: 12, successes: 12, failures: 0, timeouts: 0, rejects: 0, latencyMeanMs: 4.5 },
      backendId: OTHER,
      updatedAt: NOW,
    },
  ],
});
document('ResetBreakersRequest', ResetBreakersRequest, { serverId: 'eu-1' });
document('ResetBreakersAnswer', ResetBreakersAnswer, { reset: 2 });
