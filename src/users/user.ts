import { z } from 'zod';

import { Plan, Role } from '../platform/database/generated/enums.js';

/** RFC 5321 §4.5.3.1.3: a path has at most 256 octets, its angle brackets included. */
const EMAIL_CHARS_MAX = 254;

/** An e-mail address as accounts are known by: trimmed and lower-cased, so that one mailbox is one account. */
export const Email = z
  .string()
  .trim()
  .toLowerCase()
  .max(EMAIL_CHARS_MAX)
  .pipe(z.email())
  .describe('E-mail address; upper and lower case are the same');

/** One line of text that a person chose: no control characters, so that it cannot forge log lines or terminals. */
export const DisplayName = z
  .string()
  .trim()
  .min(1)
  .max(100)
  .regex(/^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]*$/u, 'must not hold control characters');

/** An account as its owner sees it. */
export const UserView = z.object({
  id: z.guid(),
  email: z.string(),
  name: z.string().nullable(),
  role: z.enum(Role),
  plan: z.enum(Plan),
});
export type UserView = z.infer<typeof UserView>;
