/**
 * Every limit of the data plane, with its reason. A limit that is reached sheds the newest (of handshakes: the oldest of the
 * source that has most); nobody else is harmed.
 */
import { z } from 'zod';

/** A whole number that an operator may set, and what it is without. */
const limit = (value: number, min: number, max: number, help: string) =>
  z.coerce.number().int().min(min).max(max).default(value).describe(help);

/** What an operator may set, by the flag and the variable that the name makes (`--max-connections`, `BORE_MAX_CONNECTIONS`). */
export const Limits = z.object({
  /** Two descriptors each: below 20,000, what a process may usually open. */
  maxConnections: limit(8_000, 1, 1_000_000, 'visitors at once, two descriptors each'),
  /** One tunnel must not be the whole server. */
  maxConnectionsPerTunnel: limit(1_024, 1, 1_000_000, 'visitors at once of a tunnel that sets none'),
  /** A quarter of the server. */
  maxConnectionsPerSource: limit(2_000, 1, 1_000_000, 'visitors at once from one address'),
  /** More than any honest address makes; at ~0.3 ms of CPU each, a seventh of a core. */
  connectionsPerSecondPerSource: limit(500, 1, 1_000_000, 'new visitors a second from one address'),
  /** More arrive only if the client is slower than the world. */
  maxWaitingPerTunnel: limit(256, 1, 65_535, 'visitors of a tunnel that its client has not fetched'),
  /** Upstream's server keeps a visitor as long. */
  waitingSeconds: limit(10, 1, 60, 'how long a visitor waits to be fetched'),
  /** ~4 KiB of memory and a descriptor each. */
  maxHandshakes: limit(2_048, 1, 1_000_000, 'control connections in their handshake'),
  /** One client may have to accept a burst of visitors at once (twice `maxWaitingPerTunnel`). */
  maxHandshakesPerSource: limit(512, 1, 1_000_000, 'the same, from one address'),
  /** Half of what it may carry itself: they take from the same descriptors. Only with a peer port. */
  maxForwarded: limit(4_000, 1, 1_000_000, 'connections passed on to other servers of one name at once'),
  /** A person who mistypes a secret makes a few; a guesser makes thousands. */
  failuresBeforeBan: limit(30, 1, 1_000_000, 'failed handshakes from one address in a minute before a ban'),
  /** Guessing at 30 a ban is hopeless against 256 bits; longer would only punish who shares the address. */
  banSeconds: limit(300, 0, 86_400, 'how long such an address is banned; 0: never'),
  /** Off: a silent stream is a right of TCP, and costs ~15 KiB. */
  idleSeconds: limit(0, 0, 2_592_000, 'when a stream in which nothing moves is ended; 0: never'),
  /** As long as Linux keeps a half-closed connection that nobody owns (tcp_fin_timeout). */
  lingerSeconds: limit(60, 1, 86_400, 'the same, after one side has finished'),
  /** What the control plane says counts; this is for tunnels without a word from it (stand-alone). */
  bandwidthMbpsPerTunnel: limit(0, 0, 1_000_000, 'Mbit/s of a tunnel that sets none; 0: no limit'),
  /** A deployment of the control plane, or a database failover and its repair, fits in; a deleted tunnel is refused after it. */
  grantTtlSeconds: limit(900, 0, 86_400, 'how long a known client may return without the control plane'),
  /** systemd kills after 90 s by default. */
  drainSeconds: limit(30, 0, 86_400, 'how long streams may go on after SIGTERM'),
});
/** The limits in force. */
export type Limits = z.output<typeof Limits>;

/** Connections that the kernel holds until we take them, for each port: a burst as large as all handshakes and more. Node's 511 loses some. */
export const ACCEPT_BACKLOG = 4_096;

/** Challenge to Hello or Accept, the whole of it: a byte now and then does not extend it. Upstream's client waits as long. */
export const HANDSHAKE_MS = 3_000;

/** Who connects to the control port, says nothing for this long and leaves has not come to say anything. */
export const SILENCE_MS = 1_000;

/** How long a backend may take to say who a client is: upstream's client gives up after 3 s, and must hear our answer. */
export const AUTHORIZE_MS = 2_000;

/**
 * How long it may take to hand a client that said Hello over to the owner, connecting included: two round trips between
 * servers. Upstream's client gives up after 3 s, and must hear of an owner that does not answer. For one that fetches a
 * visitor it may take as long as the visitor waits.
 */
export const HAND_OVER_MS = 2_000;

/** How long the refusal of a client that another server has handed over has to get there before the connection is cut. */
export const LAST_WORDS_MS = 1_000;

/** How long a backend may search the tunnels of other servers: it has just found out that none of ours is meant. */
export const LOCATE_MS = 1_000;

/**
 * TCP keepalive on control connections and streams: idle time before the first probe. Node probes each second then and
 * gives up after ten, so a vanished client is noticed in about 15 s. Heartbeat frames would defeat this: data in flight
 * keeps the kernel retransmitting, for a quarter of an hour, and it never probes.
 */
export const KEEPALIVE_MS = 5_000;

/** The same on visitors' connections: a visitor that vanished holds two descriptors, and there may be thousands to probe. */
export const VISITOR_KEEPALIVE_MS = 60_000;

/** Notices of visitors that a client has not read, in bytes: ~1,000 visitors. It acknowledges and never reads: it hangs. */
export const CONTROL_BACKLOG_BYTES_MAX = 65_536;

/** How long the last words to a client may take to leave before its connection is cut. */
export const FAREWELL_MS = 5_000;

/** Searches by secret alone that may fail, from one source address, in {@link FAILURE_WINDOW_MS}: each costs an HMAC a tunnel. */
export const FAILED_SEARCHES_MAX = 10;

/** Failures are counted in windows of this length. */
export const FAILURE_WINDOW_MS = 60_000;

/** Source addresses remembered for a rate, a count of failures or a ban, ~100 bytes each; the oldest is forgotten first. */
export const SOURCES_MAX = 10_000;

/** Tunnels remembered as just fenced or closed, so that a grant under way cannot bring them back; the oldest is forgotten first. */
export const FENCES_MAX = 10_000;

/**
 * How late the control plane may be in closing a tunnel whose time to live has ended, before we do it: longer than it
 * needs when it is there, so that its clock decides and ours only when it is away.
 */
export const EXPIRY_GRACE_MS = 10_000;

/** How often we look for tunnels whose time has ended. */
export const EXPIRY_CHECK_MS = 1_000;

/** A request to the admin surface is a reason, or a tunnel's settings with two lists of networks, in JSON. */
export const ADMIN_BODY_BYTES_MAX = 16_384;

/** Connection records that wait for a report, ~300 bytes each: minutes of a busy server without a control plane. The oldest goes first. */
export const RECORDS_MAX = 20_000;
