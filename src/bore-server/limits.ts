/**
 * Every limit of the data plane, with its reason. A limit that is reached sheds the newest; nobody else is harmed.
 */

/** Connections that the kernel holds until we take them, for each port: a burst as large as all handshakes and more. Node's 511 loses some. */
export const ACCEPT_BACKLOG = 4_096;

/** Challenge to Hello or Accept, the whole of it: a byte now and then does not extend it. Upstream's client waits as long. */
export const HANDSHAKE_MS = 3_000;

/** Connections that have not finished their handshake, over all sources: ~4 KiB of memory and a descriptor each. */
export const HANDSHAKES_MAX = 2_048;

/** The same for one source address. One client may have to accept a burst of visitors at once ({@link WAITING_PER_TUNNEL_MAX}). */
export const HANDSHAKES_PER_SOURCE_MAX = 512;

/** How long a backend may take to say who a client is: upstream's client gives up after 3 s, and must hear our answer. */
export const AUTHORIZE_MS = 2_000;

/** How long a visitor waits for the client to fetch it; upstream's server keeps them as long. */
export const WAITING_VISITOR_MS = 10_000;

/** Visitors of one tunnel waiting for their client: more arrive only if the client is slower than the world. */
export const WAITING_PER_TUNNEL_MAX = 256;

/** Visitors at once of a tunnel that names no limit of its own. */
export const CONNECTIONS_PER_TUNNEL_MAX = 1_024;

/** Visitors at once over all tunnels, two descriptors each: below 20,000, what a process may usually open. */
export const CONNECTIONS_MAX = 8_000;

/** Visitors at once from one source address, over all tunnels: a quarter of the server. */
export const CONNECTIONS_PER_SOURCE_MAX = 2_000;

/** How long a stream may be silent after one side has finished: the other side is then taken for dead. */
export const LINGER_MS = 60_000;

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

/** Searches by secret alone that may fail, from one source address, in {@link FAILED_SEARCH_WINDOW_MS}: each costs an HMAC a tunnel. */
export const FAILED_SEARCHES_MAX = 10;
export const FAILED_SEARCH_WINDOW_MS = 60_000;

/** Source addresses remembered for that; the oldest is forgotten first. */
export const FAILED_SEARCH_SOURCES_MAX = 10_000;

/** Tunnels remembered as just closed, so that a grant under way cannot bring them back; the oldest is forgotten first. */
export const CLOSED_TUNNELS_MAX = 10_000;

/** A request to the admin surface is a reason in JSON. */
export const ADMIN_BODY_BYTES_MAX = 4_096;
