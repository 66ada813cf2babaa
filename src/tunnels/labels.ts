import { z } from 'zod';

/** More would be a database of its own: 16 × (63 + 128) characters are 3 KB of each view. */
const LABELS_MAX = 16;
const VALUE_CHARS_MAX = 128;
/** Labels asked for at once in a list. */
const FILTERS_MAX = 5;

const LabelKey = z
  .string()
  .regex(
    /^[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?$/,
    'lower-case letters, digits, dots, dashes, underscores and slashes, at most 63',
  );

const LabelValue = z
  .string()
  .max(VALUE_CHARS_MAX)
  // half a surrogate pair is no text that the database can keep
  .regex(/^[^\p{Cc}\p{Cs}]*$/u, 'must hold no control characters');

/** The owner's own marks of a tunnel. */
export const Labels = z.record(LabelKey, LabelValue);
export type Labels = z.infer<typeof Labels>;

/** The same, as they arrive: counted before any is looked at, because thousands of wrong ones would be thousands of errors. */
export const GivenLabels = z.preprocess((given, context) => {
  if (typeof given !== 'object' || given === null || Object.keys(given).length <= LABELS_MAX) return given;
  context.addIssue({ code: 'custom', message: `at most ${LABELS_MAX}` });
  return z.NEVER;
}, Labels);

/** `key`: any tunnel that has it; `key:value`: with this very value. */
const LabelFilter = z
  .string()
  .transform((text): { key: string; value?: string | undefined } => {
    const colon = text.indexOf(':');
    return colon < 0 ? { key: text } : { key: text.slice(0, colon), value: text.slice(colon + 1) };
  })
  .pipe(z.object({ key: LabelKey, value: LabelValue.optional() }));
export type LabelFilter = z.infer<typeof LabelFilter>;

/** `?label=` of a list, which may be given several times: what is listed has all of them. */
export const LabelFilters = z.preprocess(
  (given) => (typeof given === 'string' ? [given] : given),
  z.array(LabelFilter).max(FILTERS_MAX),
);
