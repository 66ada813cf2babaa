import { z } from 'zod';

import type { User } from '../platform/database/generated/client.js';
import { Plan, Role } from '../platform/database/generated/enums.js';
import { PageQuery } from '../platform/http/page.js';
import { Reason } from '../platform/http/reason.js';
import { DisplayName, Email, UserView } from './user.js';

/** A year: longer than any port should be kept from everybody without somebody looking again. */
const QUARANTINE_HOURS_MAX = 8_760;

/** An e-mail address of 254 characters, in base64url. */
const CURSOR_CHARS_MAX = 340;

/** How long a public port is kept from everybody; 0: not at all. */
export const QuarantineHours = z.int().min(0).max(QUARANTINE_HOURS_MAX);

const flag = z.enum(['true', 'false']).transform((text) => text === 'true');

export const ListUsersQuery = PageQuery.extend({
  cursor: z.string().max(CURSOR_CHARS_MAX).optional(),
  email: z
    .string()
    .trim()
    .toLowerCase()
    .min(1)
    .max(254)
    .regex(/^\P{Cc}*$/u, 'must not hold control characters')
    .optional()
    .describe('Beginning of the e-mail address'),
  role: z.enum(Role).optional(),
  plan: z.enum(Plan).optional(),
  suspended: flag.optional(),
  sort: z.enum(['createdAt', '-createdAt', 'email', '-email']).default('-createdAt').describe('-: descending'),
});
export type ListUsersQuery = z.output<typeof ListUsersQuery>;

/** What is left out stays. */
export const UpdateUserRequest = z
  .strictObject({
    plan: z.enum(Plan).optional().describe('A smaller one closes nothing: it refuses the next tunnel'),
    role: z.enum(Role).optional(),
    name: DisplayName.optional(),
    suspended: z
      .union([
        z.literal(false),
        z.strictObject({
          reason: Reason,
          quarantineHours: QuarantineHours.default(0).describe(
            'Keeps the ports of tunnels that this closes, and of those closed in so many hours before',
          ),
        }),
      ])
      .optional()
      .describe('Suspending closes all tunnels and refuses every login, session and key until it is ended with false'),
  })
  .refine((change) => Object.values(change).some((value) => value !== undefined), 'names nothing to change');
export type UpdateUserRequest = z.output<typeof UpdateUserRequest>;

/** An account as administrators see it. */
export const AdminUserView = UserView.extend({
  suspendedAt: z.iso.datetime().nullable(),
  suspendedReason: z.string().nullable(),
  openTunnels: z.int().describe('Tunnels that are not closed'),
  createdAt: z.iso.datetime(),
  version: z.int().describe('Grows with each change by an administrator; also sent as ETag'),
});
export type AdminUserView = z.infer<typeof AdminUserView>;

export function viewAdminUser(user: User): AdminUserView {
  const { id, email, name, role, plan, suspendedReason, openTunnels, version } = user;
  return {
    id,
    email,
    name,
    role,
    plan,
    suspendedReason,
    openTunnels,
    version,
    suspendedAt: user.suspendedAt?.toISOString() ?? null,
    createdAt: user.createdAt.toISOString(),
  };
}

/** Where an account stands in a list: by its e-mail, or by its id, which is as old as the account. */
export const keyOfUser = (sort: ListUsersQuery['sort']) => (user: AdminUserView) =>
  sort.endsWith('email') ? user.email : user.id;

/** What {@link keyOfUser} makes. */
export const userKeyOf = (sort: ListUsersQuery['sort']) => (sort.endsWith('email') ? Email : z.guid());
