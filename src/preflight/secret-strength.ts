/**
 * How hard a secret is to guess, at most. Nobody can tell from a text how it was made; but what repeats itself, counts up or is
 * made of words was not drawn at random, and those characters count for nothing here.
 */

/** Characters that follow from those before them, in runs of so many or more: `aaaa`, `abcd`, `4321`. */
const RUN_MIN = 4;
/** A part that was there before. By chance, a random text of 64 hex digits has one in 30 times; it costs it 16 bits of 256. */
const REPEAT_MIN = 4;
/** What people write where a secret should stand; worth nothing. */
const KNOWN_WORDS =
  /password|passphrase|secret|token|internal|tunnel|bore|postgres|redis|admin|root|user|prod|test|development|example|sample|default|placeholder|change|insecure|strong|qwerty|asdf|letmein|welcome/gi;
/**
 * Where words are set apart, each is drawn from 7,776, as diceware has, at best, its number or year included. A word stands alone
 * between two separators: letters that follow each other in random base64url are none.
 */
const SEPARATOR = /[-_. ]/g;
const WORDS = /(?<![^-_. ])((?:[a-zA-Z][a-z]{2,})+)[^-_. a-zA-Z]{0,5}(?![^-_. ])/g;
const WORD = /[a-zA-Z][a-z]{2,}/g;
const WORD_BITS = 13;

/** How many bits a secret holds at most. */
export function secretBits(text: string): number {
  const nothing = new Set<number>([
    ...positionsOf(text, KNOWN_WORDS),
    ...positionsOf(text, SEPARATOR),
    ...runPositions(text),
    ...repeatPositions(text),
  ]);
  // those that are more than what counts for nothing anyway
  const isWords = text.search(SEPARATOR) >= 0;
  const found = isWords
    ? [...text.matchAll(WORDS)].map(({ index, 0: whole, 1: letters = '' }) => ({
        at: [...positions(index, whole.length)],
        words: letters.match(WORD)?.length ?? 0,
      }))
    : [];
  const counted = found.filter(({ at }) => at.some((position) => !nothing.has(position)));
  for (const position of counted.flatMap(({ at }) => at)) nothing.add(position);
  const words = counted.reduce((sum, each) => sum + each.words, 0);
  return Math.floor((text.length - nothing.size) * Math.log2(alphabetOf(text)) + words * WORD_BITS);
}

function* positions(start: number, length: number): Generator<number> {
  for (let i = start; i < start + length; i++) yield i;
}

function* positionsOf(text: string, pattern: RegExp): Generator<number> {
  for (const { index, 0: found } of text.matchAll(pattern)) yield* positions(index, found.length);
}

function* runPositions(text: string): Generator<number> {
  let start = 0;
  for (let i = 1; i <= text.length; i++) {
    const step = stepAt(text, i);
    const goesOn = step !== undefined && Math.abs(step) <= 1 && (i - start === 1 || step === stepAt(text, i - 1));
    if (goesOn) continue;
    if (i - start >= RUN_MIN) yield* positions(start, i - start);
    // the last two may begin another run
    start = step !== undefined && Math.abs(step) <= 1 ? i - 1 : i;
  }
}

const stepAt = (text: string, i: number): number | undefined =>
  i < text.length ? text.charCodeAt(i) - text.charCodeAt(i - 1) : undefined;

function* repeatPositions(text: string): Generator<number> {
  const lower = text.toLowerCase();
  const seen = new Map<string, number>();
  for (let i = 0; i + REPEAT_MIN <= lower.length; i++) {
    const part = lower.slice(i, i + REPEAT_MIN);
    const before = seen.get(part);
    if (before === undefined) seen.set(part, i);
    else yield* positions(i, REPEAT_MIN);
  }
}

/** How many symbols each character was drawn from, by the kinds that are there. */
function alphabetOf(text: string): number {
  if (/^[0-9a-f]*$/.test(text) || /^[0-9A-F]*$/.test(text)) return /[a-f]/i.test(text) ? 16 : 10;
  const kinds = [
    [/\d/, 10],
    [/[a-z]/, 26],
    [/[A-Z]/, 26],
    [/[^\da-zA-Z]/, 6],
  ] as const;
  return Math.max(
    2,
    kinds.reduce((sum, [kind, size]) => sum + (kind.test(text) ? size : 0), 0),
  );
}
