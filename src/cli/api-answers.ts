/**
 * What borectl reads of the API's answers. Unknown members are ignored, so that an older borectl works with a newer
 * platform.
 */
import { z } from 'zod';

/** RFC 9457 problem document, as every error of the API answers. */
export const Problem = z.object({
  status: z.int(),
  code: z.string(),
  detail: z.string(),
  errors: z.array(z.object({ path: z.string(), message: z.string() })).optional(),
  retryAfter: z.number().optional(),
});
export type Problem = z.infer<typeof Problem>;

export const TokenPair = z.object({
  accessToken: z.string(),
  refreshToken: z.string(),
  user: z.object({ id: z.string(), email: z.string() }),
});
export type TokenPair = z.infer<typeof TokenPair>;

export const Tunnel = z.object({
  id: z.string(),
  name: z.string().nullable(),
  state: z.string(),
  closeReason: z.string().nullable(),
  host: z.string(),
  controlPort: z.int(),
  port: z.int(),
  publicAddress: z.string(),
  location: z.string(),
  localPort: z.int().nullable(),
  expiresAt: z.string().nullable(),
});
export type Tunnel = z.infer<typeof Tunnel>;

/** A tunnel just opened: the only time that the API shows its token. */
export const OpenedTunnel = Tunnel.extend({ token: z.string(), command: z.string() });
export type OpenedTunnel = z.infer<typeof OpenedTunnel>;

export const TunnelPage = z.object({ items: z.array(Tunnel), nextCursor: z.string().nullable() });
export type TunnelPage = z.infer<typeof TunnelPage>;

/** An answer without a body. */
export const Nothing = z.undefined();
