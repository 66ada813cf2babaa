import { z } from 'zod';

import { ApiKeyScope } from '../platform/http/api-key-scope.js';
import { Instant } from '../platform/http/instant.js';
import { pageOf } from '../platform/http/page.js';
import { DisplayName } from '../users/user.js';
import type { ApiKeyRow } from './api-keys.repository.js';

export const CreateApiKeyRequest = z.strictObject({
  name: DisplayName.describe('What the key is for'),
  scopes: z
    .array(ApiKeyScope)
    .min(1)
    .max(ApiKeyScope.options.length)
    .refine((scopes) => new Set(scopes).size === scopes.length, 'must not name a scope twice')
    .describe('What the key may do; those of `admin:` are for administrators, and work while the owner is one'),
  expiresAt: Instant.refine((text) => Date.parse(text) > Date.now(), 'must be in the future')
    .optional()
    .describe('When the key ends; never when left out'),
});
export type CreateApiKeyRequest = z.output<typeof CreateApiKeyRequest>;

/** An API key as its owner sees it, after it was made. */
export const ApiKeyView = z.object({
  id: z.guid(),
  name: z.string(),
  scopes: z.array(ApiKeyScope),
  createdAt: z.iso.datetime(),
  lastUsedAt: z.iso.datetime().nullable().describe('To the minute'),
  expiresAt: z.iso.datetime().nullable(),
  revokedAt: z.iso.datetime().nullable(),
});
export type ApiKeyView = z.infer<typeof ApiKeyView>;

export const ApiKeyPage = pageOf(ApiKeyView);

/** An API key just made: the only time that it is shown. */
export const CreatedApiKey = ApiKeyView.extend({
  key: z.string().describe('Goes into `Authorization: Bearer`; not shown again'),
});
export type CreatedApiKey = z.infer<typeof CreatedApiKey>;

export function viewApiKey({ createdAt, lastUsedAt, expiresAt, revokedAt, ...row }: ApiKeyRow): ApiKeyView {
  return {
    ...row,
    createdAt: createdAt.toISOString(),
    lastUsedAt: lastUsedAt?.toISOString() ?? null,
    expiresAt: expiresAt?.toISOString() ?? null,
    revokedAt: revokedAt?.toISOString() ?? null,
  };
}
