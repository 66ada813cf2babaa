/**
 * What bore-servers and backends say to each other, over HTTP with JSON. Every call carries the internal key in
 * {@link INTERNAL_KEY_HEADER}.
 *
 *     bore-server                                                  backend
 *       | -- POST /api/v1/internal/servers/register -----------------> |   once at start, again when told SERVER_UNKNOWN
 *       | -- POST /api/v1/internal/servers/:id/heartbeat ------------> |   every heartbeatIntervalMs, and at once when a
 *       | <----------------------- orders: what to close, drain ------ |   session ends
 *       | -- POST /api/v1/internal/tunnels/authorize ----------------> |   for each client that says Hello
 *       | -- POST /api/v1/internal/tunnels/locate -------------------> |   whose tunnel, among servers of one name (peers.ts)
 *       | <- POST {adminUrl}/tunnels/:id/close ----------------------- |   a tunnel was deleted
 *       | <- POST {adminUrl}/tunnels/:id/settings -------------------- |   its owner changed its limits or policy
 *       | <- POST {adminUrl}/tunnels/:id/fence ----------------------- |   its owner rotated its token, or ends its client
 */
import { z } from 'zod';

import { PeerAddress, PeerDirectory } from './peers.js';
import { Report } from './reports.js';
import { TunnelSettings } from './tunnel-settings.js';

/** Header that carries the internal key, both ways. */
export const INTERNAL_KEY_HEADER = 'x-internal-api-key';

/** Path prefix of the routes that only bore-servers call. */
export const INTERNAL_PREFIX = '/api/v1/internal';

/** The largest `integer` of the database. */
const INT32_MAX = 2_147_483_647;
const Int32 = z.int().max(INT32_MAX);

/** An operator's name for a bore-server; also a Prometheus label and a Kubernetes pod name. */
export const ServerId = z
  .string()
  .regex(/^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,61}[a-zA-Z0-9])?$/, 'letters, digits, dots and dashes, at most 63')
  .describe('The operator’s own id of a bore-server');

/** A port that something listens on. */
export const ListenPort = z.int().min(1).max(65_535);

/** Public name or address of a bore-server, as clients will type it. */
export const HostName = z
  .string()
  // nothing else is looked at in a longer one: the pattern takes the square of its length
  .max(253, { abort: true })
  .regex(
    /^([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$|^[0-9a-fA-F:]*:[0-9a-fA-F:.]*$/,
    'a host name or an IP address',
  );

/** A region or site name. */
export const Location = z
  .string()
  .regex(/^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,62})$/, 'letters, digits, dots, dashes and underscores, at most 63');

/** How much a program logs: each says what those before it say, and more. */
export const LogLevelName = z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace']);
export type LogLevelName = z.infer<typeof LogLevelName>;

/** Why a client session ended. */
export const SessionEndReason = z.enum([
  /** The client closed its control connection. */
  'client_closed',
  /** The client's control connection was reset. */
  'client_reset',
  /** The client vanished: dead by TCP keepalive. */
  'client_lost',
  /** The same tunnel connected again. */
  'taken_over',
  /** Ordered by the backend: deleted, expired, revoked. */
  'ordered',
  /** Its token was rotated. */
  'token_rotated',
  /** The tunnel's owner has ended it; the client may come back. */
  'disconnected',
  /** The public port could not be opened: something else on the machine has it. */
  'port_unavailable',
  /** The bore-server is stopping. */
  'server_stopping',
  /** The client broke the wire protocol. */
  'protocol_error',
]);
export type SessionEndReason = z.infer<typeof SessionEndReason>;

/** Names one client session of one tunnel. `epoch` grows with each session of the tunnel (G3). */
const SessionRef = z.object({ tunnelId: z.guid(), sessionId: z.guid(), epoch: Int32.min(1) });
export type SessionRef = z.infer<typeof SessionRef>;

/** Grows with each rotation of a tunnel's token. Left out by those of older releases: as it was in the beginning. */
const KeyVersion = Int32.min(0).default(0);

/**
 * Everything of a tunnel that must be over: its sessions up to an epoch, and whatever was let in under a key older than
 * `keyVersion`. It says nothing about what began later, so it may arrive late and twice (G3).
 */
export const Fence = z.object({
  tunnelId: z.guid(),
  epoch: Int32.min(0),
  keyVersion: Int32.min(0),
  reason: z.string().max(64),
});
export type Fence = z.infer<typeof Fence>;

/** `epoch` and `keyVersion` of a {@link Fence} that leaves nothing: the tunnel is closed. */
export const FENCE_ALL = INT32_MAX;

/** A bore-server presents itself. What it leaves out keeps what an administrator set, or the backend's default. */
export const RegisterRequest = z.strictObject({
  serverId: ServerId,
  /** New for every process: a later registration supersedes an earlier one of the same server id. */
  instanceId: z.guid(),
  host: HostName.optional(),
  controlPort: ListenPort,
  /** Where backends reach its admin surface, e.g. `http://10.0.0.7:7836`. */
  adminUrl: z.url({ protocol: /^https?$/ }).max(512),
  location: Location.optional(),
  /** Public ports, both inclusive. */
  portRange: z
    .strictObject({ min: ListenPort, max: ListenPort })
    .refine(({ min, max }) => min <= max, 'min must not exceed max'),
  maxTunnels: z.int().min(1).max(65_535).optional(),
  maxBandwidthMbps: z.int().min(1).max(1_000_000).optional(),
  /** Its peer port, when it shares its public name with others; then nobody else of that name may have ports of its range. */
  peer: PeerAddress.optional(),
});
export type RegisterRequest = z.infer<typeof RegisterRequest>;

export const RegisterResponse = z.object({
  /** The server counts as lost when no heartbeat came for this long. Several heartbeat intervals. */
  leaseSeconds: z.int().min(1),
  heartbeatIntervalMs: z.int().min(10),
  /** Tunnels this server may carry at once, as the control plane counts them. */
  maxTunnels: z.int().min(1),
  /** For a server with a peer port. */
  peers: PeerDirectory.optional(),
});
export type RegisterResponse = z.infer<typeof RegisterResponse>;

/** A bore-server is alive; what it carries, and which sessions ended since the last answered heartbeat. */
export const HeartbeatRequest = z.strictObject({
  instanceId: z.guid(),
  /** Grows by one with each heartbeat of a process: one that arrives late, behind a later one, changes nothing. */
  sequence: Int32.min(1),
  /** It takes no new tunnels. */
  draining: z.boolean(),
  load: z.strictObject({
    /** Visitor connections open now. */
    connections: Int32.min(0),
    /** Mean over the time since the last heartbeat, both directions added. */
    bandwidthMbps: z.number().min(0),
  }),
  /** Every session it carries now: at most one for each of its ports. `settings`: the version it works with. */
  sessions: z.array(SessionRef.extend({ keyVersion: Int32.min(0).optional(), settings: z.int().min(0) })).max(65_535),
  /**
   * Tunnels without a session of which it keeps a grant or carries streams all the same, with the latest session that it
   * knows of: at most one for each of its ports, and for each of its visitors. Left out when there are none.
   */
  kept: z
    .array(z.object({ tunnelId: z.guid(), epoch: Int32.min(1), keyVersion: Int32.min(0), settings: z.int().min(0) }))
    .max(65_535)
    .optional(),
  /** Sent again until a heartbeat is answered; applying one twice changes nothing. */
  ended: z.array(SessionRef.extend({ reason: SessionEndReason })).max(65_535),
  /** Left out when nothing happened. */
  report: Report.optional(),
  /** Of a server with a peer port: the version of the directory that it works with; empty: of none. */
  peersVersion: z.string().max(64).optional(),
});
export type HeartbeatRequest = z.infer<typeof HeartbeatRequest>;

export const HeartbeatResponse = z.object({
  /** Whether an administrator wants the server drained. */
  drain: z.boolean(),
  /** Sessions that must not be there: their tunnel was closed, or another session has taken it. */
  close: z.array(SessionRef.extend({ reason: z.string() })),
  /** What else must be over, of sessions and of what is kept. Backends of older releases say nothing about it. */
  fences: z.array(Fence).default([]),
  /** Settings of tunnels that work with older ones. */
  update: z.array(z.object({ tunnelId: z.guid(), settings: TunnelSettings })),
  /** The sequence of the report that came with the heartbeat: it is in the books, now or since an earlier try. */
  reported: z.int().nullable(),
  /** Where the directory has another version than the server works with. */
  peers: PeerDirectory.optional(),
  /** How much an administrator wants logged for a time; left out: as the server was started. */
  logLevel: LogLevelName.optional(),
});
export type HeartbeatResponse = z.infer<typeof HeartbeatResponse>;

/** A client said Hello: may it carry a tunnel of this server? */
export const AuthorizeRequest = z.strictObject({
  serverId: ServerId,
  instanceId: z.guid(),
  /** The public port it asked for; 0: find the tunnel by the answer, among this server's open ones. */
  port: z.int().min(0).max(65_535),
  challenge: z.guid(),
  /** The client's answer to the challenge, as sent. */
  tag: z.string().max(256),
  /** The session that begins if this is granted; chosen by the bore-server. */
  sessionId: z.guid(),
  /** The client's IP address. */
  clientAddress: z.string().max(64),
});
export type AuthorizeRequest = z.infer<typeof AuthorizeRequest>;

/** Leave to carry one tunnel. Holds the tunnel's key: never log it. */
export const Grant = z.object({
  tunnelId: z.guid(),
  sessionId: z.guid(),
  epoch: Int32.min(1),
  port: ListenPort,
  /** HMAC key of the wire protocol, 64 hex digits. */
  key: z.string().regex(/^[0-9a-f]{64}$/),
  keyVersion: KeyVersion,
  settings: TunnelSettings,
  /** When the tunnel's time to live ends; null: never. */
  expiresAt: z.iso.datetime().nullable(),
});
export type Grant = z.infer<typeof Grant>;

/** Backend → bore-server: end whatever carries this tunnel. */
export const CloseTunnelRequest = z.strictObject({ reason: z.string().max(64) });
export type CloseTunnelRequest = z.infer<typeof CloseTunnelRequest>;

export const CloseTunnelResponse = z.object({
  /** Whether a session was there to close. */
  closed: z.boolean(),
});
export type CloseTunnelResponse = z.infer<typeof CloseTunnelResponse>;

/** Backend → bore-server (`POST /tunnels/:id/fence`): end what is behind it. */
export const FenceRequest = Fence.omit({ tunnelId: true });
export type FenceRequest = z.infer<typeof FenceRequest>;

export const FenceResponse = z.object({
  /** Whether anything of the tunnel was here. */
  fenced: z.boolean(),
});
export type FenceResponse = z.infer<typeof FenceResponse>;

/** Backend → bore-server (`POST /tunnels/:id/settings`, body {@link TunnelSettings}): the owner has changed them. */
export const UpdateTunnelResponse = z.object({
  /** Whether the tunnel is here. */
  updated: z.boolean(),
});
export type UpdateTunnelResponse = z.infer<typeof UpdateTunnelResponse>;
