import { z } from 'zod';

/**
 * Refusals of the internal API that a bore-server acts upon, as `code` of the problem document.
 * Anything else, a time-out included, means "the backend is not there now".
 */
export const PlaneErrorCode = z.enum([
  /** Heartbeat or authorize of a server that is not registered: register again. */
  'SERVER_UNKNOWN',
  /** Another process has registered under this id since: stop. */
  'SERVER_SUPERSEDED',
  /** Authorize: no open tunnel of this server answers to that port and secret. */
  'INVALID_SECRET',
  /** Locate: too many tunnels to look at all of them; the client must name its port. */
  'PORT_REQUIRED',
  /** Register: another server of the same public name has ports of this range. */
  'PORT_RANGE_TAKEN',
]);
export type PlaneErrorCode = z.infer<typeof PlaneErrorCode>;
