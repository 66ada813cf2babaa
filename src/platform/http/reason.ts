import { z } from 'zod';

/**
 * Why an administrator does something: one line, for the audit log and whoever reads it. No control characters, and no halves of
 * characters: the database keeps none.
 */
export const Reason = z
  .string()
  .trim()
  .min(1)
  .max(500)
  .regex(/^[^\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]*$/u, 'must not hold control characters');
