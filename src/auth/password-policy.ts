import { dictionary } from '@zxcvbn-ts/language-common';
import { z } from 'zod';

const CHARS_MIN = 12;
/** Far more than anybody remembers; a bound, so that nothing has to be cut. */
const CHARS_MAX = 128;
/** Of what arrives: a character may be several code points until it is in its normal form, and each of those two units. */
const UNITS_MAX = 1_024;

/**
 * A password as it arrives. Half of a character is refused: UTF-8 has no bytes for it, and many passwords would have one hash.
 */
export const TypedPassword = z
  .string()
  .min(1)
  // a longer one is not normalised: that takes the square of the marks on one letter
  .max(UNITS_MAX, { abort: true })
  .regex(/^\P{Cs}*$/u, 'must be whole characters');

/** Length is the only rule: composition rules make passwords weaker (OWASP ASVS 5.0, 6.2.5; NIST SP 800-63B). */
export const NewPassword = TypedPassword.refine((text) => {
  const { length } = Array.from(normalForm(text));
  return length >= CHARS_MIN && length <= CHARS_MAX;
}, `must have ${CHARS_MIN} to ${CHARS_MAX} characters`).describe(
  `${CHARS_MIN} to ${CHARS_MAX} characters, any characters; not one of those that are tried first`,
);

/**
 * What is hashed of a password: Unicode's NFKC (NIST SP 800-63B), so that the same keys give the same password on another machine,
 * whichever form its keyboard sends.
 */
export function normalForm(password: string): string {
  return password.normalize('NFKC');
}

/** Below this, what is left of a password without its digits is no word but chance. */
const STEM_CHARS_MIN = 4;

/** The 49,000 passwords that are found most often in breaches, in lower case. */
const COMMON = new Set(dictionary['passwords-common']);

/**
 * Why a new password of this account would be guessed, or `null`: it is what everybody tries first, also with digits and signs at
 * its ends, or a few characters again and again, or holds the e-mail address.
 */
export function weaknessOf(password: string, email: string): string | null {
  const text = normalForm(password).toLowerCase();
  if (text.includes(email)) return 'must not hold the e-mail address';
  const stem = text.replace(/^\P{L}+|\P{L}+$/gu, '');
  if (COMMON.has(text) || (stem.length >= STEM_CHARS_MIN && COMMON.has(stem))) {
    return 'is one of the passwords that are tried first: choose another';
  }
  if (/^(.{1,4})\1+$/su.test(text)) return 'is a few characters again and again: choose another';
  return null;
}
