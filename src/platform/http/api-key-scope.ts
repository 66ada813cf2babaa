import { z } from 'zod';

/** What an API key may be allowed to do. Those of `admin:` work only while the key's owner is an administrator. */
export const ApiKeyScope = z.enum([
  'tunnels:read',
  'tunnels:write',
  'usage:read',
  'capacity:read',
  'admin:read',
  'admin:write',
]);
export type ApiKeyScope = z.infer<typeof ApiKeyScope>;
