import type { SessionEndReason } from '../protocol/plane-api.js';
import type { ConnectionEndReason } from '../protocol/reports.js';

/**
 * Ends of a session after which its streams may live on: the client's machine is there, and if the client itself is
 * not, its kernel ends its streams. After any other end nobody is there to carry them.
 */
export const STREAMS_SURVIVE: ReadonlySet<SessionEndReason> = new Set(['client_closed', 'client_reset']);

/** What the end of a session is to the visitors that it takes along. */
export function visitorsEnd(reason: SessionEndReason): ConnectionEndReason {
  if (reason === 'ordered' || reason === 'token_rotated' || reason === 'disconnected') return 'revoked';
  return reason === 'server_stopping' ? 'drain' : 'client_lost';
}
