import { InvalidArgumentError } from 'commander';
import { z } from 'zod';

const wholeNumber = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d{1,9}$/, 'It must be a whole number.')
    .transform(Number)
    .pipe(z.int().min(min, `It must be at least ${min}.`).max(max, `It must be at most ${max}.`));

/** A TCP port. */
export const port = parser(wholeNumber(1, 65_535));

/** A time to live; the API says how long is too long. */
export const seconds = parser(wholeNumber(1, 999_999_999));

/** A number of connections; the API has an upper limit. */
export const connections = parser(wholeNumber(1, 65_535));

/** The URL of a platform, in the one form that credentials are kept under. */
export const platformUrl = parser(
  z
    .url({ protocol: /^https?$/, error: 'It must look like https://tunnels.example.com' })
    .transform((text) => new URL(text))
    .refine(({ username, password }) => username + password === '', 'It must not hold a name or password.')
    .transform(({ origin, pathname }) => origin + pathname.replace(/\/+$/, '')),
);

/** A parser as commander wants it. */
function parser<T>(schema: z.ZodType<T, string>): (text: string) => T {
  return (text) => {
    const parsed = schema.safeParse(text);
    if (parsed.success) return parsed.data;
    throw new InvalidArgumentError(parsed.error.issues[0]?.message ?? 'It is not understood.');
  };
}
