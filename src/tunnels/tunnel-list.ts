import { createHash } from 'node:crypto';

import { z } from 'zod';

import type { Prisma } from '../platform/database/generated/client.js';
import { TunnelState } from '../platform/database/generated/enums.js';
import { Instant } from '../platform/http/instant.js';
import { keyOfCursor, PageQuery } from '../platform/http/page.js';
import { Location, ServerId } from '../protocol/plane-api.js';
import { type LabelFilter, LabelFilters } from './labels.js';

/** Mark, name of 63 characters, time and id, in base64url. */
const CURSOR_CHARS_MAX = 256;

const Sort = z.enum(['-createdAt', 'createdAt', 'name', '-name']);

export const ListTunnelsQuery = PageQuery.extend({
  cursor: z.string().max(CURSOR_CHARS_MAX).optional(),
  state: z
    .enum(['open', 'all', ...Object.values(TunnelState)])
    .default('open')
    .describe('open: pending, active or offline'),
  location: Location.optional(),
  serverId: ServerId.optional(),
  name: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'lower-case letters, digits and dashes, at most 63')
    .optional()
    .describe('Begins with this'),
  label: LabelFilters.optional().describe('key or key:value; may be repeated: a tunnel must have all of them'),
  sort: Sort.default('-createdAt').describe('Tunnels without a name come last by name'),
});
export type ListTunnelsQuery = z.output<typeof ListTunnelsQuery>;

/** Where a tunnel stands in a list. */
interface TunnelKey {
  readonly id: string;
  readonly name: string | null;
  readonly createdAt: string;
}

/** What the cursor of a list holds: a mark of the list's filters and order, and the place. */
export function keyOfTunnel(query: ListTunnelsQuery, { id, name, createdAt }: TunnelKey): string {
  return [markOf(query), createdAt, id, name ?? ''].join(' ');
}

/**
 * The place behind the query's cursor.
 * @throws PlatformError VALIDATION_FAILED when it is none of this list, of other filters or another order
 */
export function placeOf(query: ListTunnelsQuery): TunnelKey | undefined {
  if (query.cursor === undefined) return undefined;
  const key = z
    .string()
    .transform((text) => text.split(' '))
    .pipe(z.tuple([z.literal(markOf(query)), Instant, z.guid(), z.string()]));
  const [, createdAt, id, name] = keyOfCursor(query.cursor, key);
  return { createdAt, id, name: name === '' ? null : name };
}

/** The query's conditions and order, as Prisma takes them. */
export function selectionOf(query: ListTunnelsQuery, after: TunnelKey | undefined) {
  const { state, location, serverId, name, label = [], sort } = query;
  return {
    where: {
      ...(state === 'open' && { state: { not: 'closed' as const } }),
      ...(state !== 'open' && state !== 'all' && { state }),
      ...(location !== undefined && { server: { location } }),
      ...(serverId !== undefined && { serverId }),
      ...(name !== undefined && { name: { startsWith: name } }),
      AND: [...label.map(withLabel), ...(after ? [isBehind(after, sort)] : [])],
    },
    orderBy: orderOf(sort),
  } satisfies Prisma.TunnelFindManyArgs;
}

function withLabel({ key, value }: LabelFilter): Prisma.TunnelWhereInput {
  // every value is text: one that begins with nothing is any
  return { labels: value === undefined ? { path: [key], string_starts_with: '' } : { path: [key], equals: value } };
}

function orderOf(sort: ListTunnelsQuery['sort']): Prisma.TunnelOrderByWithRelationInput[] {
  const direction = sort.startsWith('-') ? 'desc' : 'asc';
  return sort.endsWith('name')
    ? [{ name: { sort: direction, nulls: 'last' } }, { id: direction }]
    : [{ createdAt: direction }, { id: direction }];
}

/** What comes behind a place. */
function isBehind({ id, name, createdAt }: TunnelKey, sort: ListTunnelsQuery['sort']): Prisma.TunnelWhereInput {
  switch (sort) {
    case 'createdAt':
      return { OR: [{ createdAt: { gt: createdAt } }, { createdAt, id: { gt: id } }] };
    case '-createdAt':
      return { OR: [{ createdAt: { lt: createdAt } }, { createdAt, id: { lt: id } }] };
    case 'name':
      if (name === null) return { name: null, id: { gt: id } };
      return { OR: [{ name: { gt: name } }, { name, id: { gt: id } }, { name: null }] };
    case '-name':
      if (name === null) return { name: null, id: { lt: id } };
      return { OR: [{ name: { lt: name } }, { name, id: { lt: id } }, { name: null }] };
  }
}

/** Of everything but the page: a cursor is good for the very list that it came from. */
function markOf({ limit: _limit, cursor: _cursor, ...rest }: ListTunnelsQuery): string {
  const text = JSON.stringify(Object.entries(rest).sort(([a], [b]) => (a < b ? -1 : 1)));
  return createHash('sha256').update(text).digest('base64url').slice(0, 12);
}
