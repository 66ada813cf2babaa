/**
 * What must not be read in a log, by the form that it has: tokens and keys of ours, JSON Web Tokens, password hashes, HMACs and
 * keys in hex, credentials of an `Authorization` header, the login of a URL, passwords of a connection string. None of the forms
 * reaches over a quote or a backslash: what is left of a JSON line is one. None asks for a boundary before it: in JSON, what stands there
 * may be the letter of an escape (`\n`).
 */
const SECRETS = [
  String.raw`[tr][kt]_[\w-]{16,}`,
  String.raw`bk_[0-9A-Za-z]+_[0-9A-Za-z]{16,}`,
  String.raw`eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+`,
  String.raw`\$argon2[\w$=,+/.-]*`,
  String.raw`[0-9a-f]{64,}`,
  String.raw`[Bb](?:earer|asic) +[\w.~+/=-]{8,}`,
  String.raw`(?<=:\/\/)[^\s"\\/@]+(?=@)`,
  String.raw`(?<=(?:password|passwd|secret)=)[^\s"\\&;]+`,
];
/** What JSON leaves as it is and a terminal obeys, or shows the rest of the line in another order by. */
const CONTROLS = String.raw`[\u007f-\u009f\p{Cf}\u2028\u2029]+`;
const HIDDEN = new RegExp(`(${CONTROLS})|${SECRETS.join('|')}`, 'gu');

/** A line of the log without secrets that a message or a stack should hold after all, and without characters that no one sees. */
export function scrub(line: string): string {
  return line.replace(HIDDEN, (_, controls: string | undefined) =>
    controls === undefined ? '***' : escaped(controls),
  );
}

function escaped(text: string): string {
  return text.replaceAll(/[^]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
