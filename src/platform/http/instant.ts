import { z } from 'zod';

/** Digits behind the second that PostgreSQL keeps are six; this leaves room for them and refuses thousands. */
const CHARS_MAX = 30;

/** A time in a query: ISO 8601, UTC, in a year that every clock and the database know. */
export const Instant = z.iso
  .datetime()
  .max(CHARS_MAX)
  .refine((text) => text >= '1970', 'must be 1970 or later');
