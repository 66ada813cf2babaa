import { z } from 'zod';

import { Plan, Role } from '../platform/database/generated/enums.js';

/** RFC 5321 §4.5.3.1.3: a path has at most 256 octets, its angle brackets included. */
const EMAIL_CHARS_MAX = 254;

/**
 * An e-mail address as accounts are known by: trimmed and lower-cased, so that one mailbox is one account. ASCII, and looked at
 * before it is lower-cased: `K` (the Kelvin sign) would become `k`, and one address another.
 */
export const Email = z
  .string()
  .trim()
  .max(EMAIL_CHARS_MAX)
  .pipe(z.email().toLowerCase())
  .describe('E-mail address; upper and lower case are the same');

/**
 * One line of text that a person chose, in Unicode's NFC. Every character is to be seen: none that forges log lines or terminals
 * (controls), turns text around (bidi), cannot be stored (halves of characters), or makes two names look the same.
 */
export const DisplayName = z
  .string()
  .trim()
  .min(1)
  // a longer one is not normalised: that takes the square of the marks on one letter
  .max(100, { abort: true })
  .regex(
    /^[^\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]*$/u,
    'must not hold control or invisible characters',
  )
  .normalize('NFC');

/** An account as its owner sees it. */
export const UserView = z.object({
  id: z.guid(),
  email: z.string(),
  name: z.string().nullable(),
  role: z.enum(Role),
  plan: z.enum(Plan),
});
export type UserView = z.infer<typeof UserView>;
