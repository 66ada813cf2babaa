import { z } from 'zod';

import { DisplayName, Email, UserView } from '../users/user.js';
import { NewPassword, TypedPassword } from './password-policy.js';

export const SignupRequest = z.strictObject({ email: Email, password: NewPassword, name: DisplayName.optional() });
export type SignupRequest = z.output<typeof SignupRequest>;

export const LoginRequest = z.strictObject({ email: Email, password: TypedPassword });
export type LoginRequest = z.output<typeof LoginRequest>;

export const RefreshRequest = z.strictObject({ refreshToken: z.string().min(1).max(128) });
export type RefreshRequest = z.output<typeof RefreshRequest>;

export const ChangePasswordRequest = z.strictObject({ currentPassword: TypedPassword, newPassword: NewPassword });
export type ChangePasswordRequest = z.output<typeof ChangePasswordRequest>;

/** A login: the access token goes into `Authorization: Bearer`, the refresh token is good for one refresh. */
export const TokenPair = z.object({
  accessToken: z.string(),
  refreshToken: z.string(),
  expiresIn: z.int().describe('Seconds until the access token expires'),
  user: UserView,
});
export type TokenPair = z.infer<typeof TokenPair>;
