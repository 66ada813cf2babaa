import { z } from 'zod';

/** Everything that the audit log records, by `<what>.<what happened>`. */
export const AuditAction = z.enum([
  'account.signed_up',
  'login.succeeded',
  'login.failed',
  'login.refused',
  'session.ended',
  'sessions.ended',
  'session.refresh_token_reused',
  'password.changed',
  'api_key.created',
  'api_key.revoked',
  'user.updated',
  'user.suspended',
  'user.restored',
  'server.created',
  'server.updated',
  'server.deleted',
  'server.drained',
  'server.undrained',
  'tunnel.opened',
  'tunnel.updated',
  'tunnel.closed',
  'tunnel.token_rotated',
  'tunnel.disconnected',
  'tunnel.suspended',
  'tunnel.relocated',
  'port.released',
  'circuit_breakers.reset',
  'evidence.exported',
]);
export type AuditAction = z.infer<typeof AuditAction>;
