/**
 * Every limit of the client, with its reason. The wire protocol's own are in src/protocol/frames.ts.
 */

/** One request to the API. A login waits for its password to be hashed, in a queue; nothing takes longer. */
export const REQUEST_MS = 15_000;

/** Largest answer of the API: a page of 100 tunnels is 60 KB. */
export const ANSWER_BYTES_MAX = 2_000_000;

/** Pages that `ls` follows: the largest plan, 65,535 tunnels, is 656 pages. */
export const LIST_PAGES_MAX = 700;

/** Tunnels in a page: the most that the API gives at once. */
export const LIST_PAGE_TUNNELS = 100;

/** A password has at most 128 characters of at most 4 bytes; more than this on stdin is no password. */
export const PASSWORD_BYTES_MAX = 1_024;

/** The file of credentials: ~1 KB for each platform. */
export const CREDENTIALS_BYTES_MAX = 1_000_000;

/** A lock on the credentials that is older was left by a process that died: twice what its one request may take. */
export const LOCK_STALE_MS = 2 * REQUEST_MS;

/** How long to wait for that lock: until it must be stale, and somewhat longer, as others wait too. */
export const LOCK_WAIT_MS = LOCK_STALE_MS + 2 * REQUEST_MS;

/** How often a waiting process looks whether the lock is gone; a refresh takes some 10 ms. */
export const LOCK_POLL_MS = 25;

/** First wait before reconnecting: a bore-server that restarts is back within a second or two. */
export const RECONNECT_MS_MIN = 250;

/** Longest wait: how late, at most, a client notices that its server is back. A server's 1,000 clients are then 100 a second. */
export const RECONNECT_MS_MAX = 10_000;

/** A connection that lasted this long had worked: what ends it is news, and the waits begin anew. */
export const STABLE_CONNECTION_MS = 10_000;

/** How long a reconnect waits for the API to say what has become of the tunnel: a server may take us back without any API. */
export const TUNNEL_STATE_MS = 3_000;

/** `invalid secret` for a tunnel that the API calls open: a race with its opening or moving, unless it happens so often. */
export const INVALID_SECRETS_MAX = 5;

/**
 * An attempt that we gave up may still be granted by the server and then looks to our next attempt like somebody
 * else's takeover. The server gives up authorising after 2 s; the rest is the way there and back.
 */
export const ABANDONED_ATTEMPT_MS = 10_000;

/** TCP keepalive of connections to the server, as the server has it: a dead one is noticed after about 15 s. */
export const KEEPALIVE_MS = 5_000;

/** Until the local service takes a connection: it is near, and the visitor's patience is not ours to spend. */
export const LOCAL_CONNECT_MS = 5_000;

/**
 * Visitors at once. Two descriptors each: below 4,096, what a process may open on a modest system, and twice what a
 * bore-server gives a tunnel that names no limit.
 */
export const VISITORS_MAX = 2_000;

/** Silence on both sides after one has finished. Longer than the server's 60 s, which decides; this is for servers that have no such limit. */
export const LINGER_MS = 120_000;

/** The same notice about visitors is repeated at most this often: one browser page makes six connections. */
export const NOTICE_REPEAT_MS = 10_000;

/** Ctrl-C again after this exits at once. Sooner it is the same key press: `npm run` passes on what the terminal has sent us too. */
export const SECOND_SIGNAL_MS = 300;
