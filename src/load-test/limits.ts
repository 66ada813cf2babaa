/** Every limit of the load test, with its reason. */

/** Users at once: with their tunnels, visitors and listeners some ten descriptors each, below what a process may open. */
export const USERS_MAX = 1_000;

/** A day: longer, and something is wrong with the number. */
export const DURATION_SECONDS_MAX = 86_400;

/** Where a request that takes longer is counted as failed; ten times what the thresholds allow. */
export const REQUEST_MS = 10_000;

/** What one user sends through a tunnel, and gets back: several reads and writes of every buffer on the way. */
export const TRAFFIC_BYTES = 64 * 1024;

/** After the end, and after Ctrl-C: to close tunnels and log out. */
export const CLEAN_UP_MS = 15_000;

/** Requests of the cleaning up at once. */
export const CLEAN_UP_AT_ONCE = 10;

/** Logins at once, before the clock starts: each costs the backend 20 ms of CPU, and more at once only wait. */
export const LOGINS_AT_ONCE = 4;

/** Until a listener whose stream broke comes back. */
export const LISTENER_RETRY_MS = 1_000;

/** Reasons of failures that are told apart in the report; more are counted together. */
export const REASONS_MAX = 20;

/** The specification's: what a production must stay within. */
export const SUCCESS_PERCENT_MIN = 99;
export const P95_MS_MAX = 500;
export const P99_MS_MAX = 1_000;
