import { z } from 'zod';

import { PlatformError } from '../errors/error-register.js';

/** More in one answer would be slow for both sides; the next page is one request away. */
const PAGE_LIMIT_MAX = 100;

/** Query of a list: newest first, `cursor` from the page before. */
export const PageQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(PAGE_LIMIT_MAX).default(20),
  cursor: z.string().max(128).optional(),
});
export type PageQuery = z.output<typeof PageQuery>;

/** One page of a list; `nextCursor` is null on the last. */
export interface Page<T> {
  readonly items: T[];
  readonly nextCursor: string | null;
}

/** Schema of a {@link Page}. */
export const pageOf = <T extends z.ZodType>(item: T) =>
  z.object({ items: z.array(item), nextCursor: z.string().nullable() });

/** Cuts `limit + 1` rows into a page. `keyOf`: where in the list's order a row stands; its id when left out. */
export function cutPage<T extends { id: string }>(
  rows: T[],
  limit: number,
  keyOf: (row: T) => string = ({ id }) => id,
): Page<T> {
  const items = rows.slice(0, limit);
  const last = items.at(-1);
  return { items, nextCursor: rows.length > limit && last ? Buffer.from(keyOf(last)).toString('base64url') : null };
}

/**
 * The place in a list behind a cursor.
 * @throws PlatformError VALIDATION_FAILED when it is none of ours.
 */
export function keyOfCursor<T>(cursor: string, key: z.ZodType<T>): T {
  const parsed = key.safeParse(Buffer.from(cursor, 'base64url').toString());
  if (!parsed.success) {
    throw new PlatformError('VALIDATION_FAILED', {
      errors: [{ path: 'cursor', message: 'is not a cursor of this list' }],
    });
  }
  return parsed.data;
}
