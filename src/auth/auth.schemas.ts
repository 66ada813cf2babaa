import { z } from 'zod';

import { DisplayName, Email, UserView } from '../users/user.js';

/** Length is the only rule: composition rules make passwords weaker (OWASP ASVS 5.0, 6.2.5; NIST SP 800-63B). */
const NewPassword = z.string().min(12).max(128).describe('12 to 128 characters, any characters');

export const SignupRequest = z.strictObject({ email: Email, password: NewPassword, name: DisplayName.optional() });
export type SignupRequest = z.output<typeof SignupRequest>;

export const LoginRequest = z.strictObject({ email: Email, password: z.string().min(1).max(128) });
export type LoginRequest = z.output<typeof LoginRequest>;

export const RefreshRequest = z.strictObject({ refreshToken: z.string().min(1).max(128) });
export type RefreshRequest = z.output<typeof RefreshRequest>;

/** A login: the access token goes into `Authorization: Bearer`, the refresh token is good for one refresh. */
export const TokenPair = z.object({
  accessToken: z.string(),
  refreshToken: z.string(),
  expiresIn: z.int().describe('Seconds until the access token expires'),
  user: UserView,
});
export type TokenPair = z.infer<typeof TokenPair>;
