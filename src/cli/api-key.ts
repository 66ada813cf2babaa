import { Failure } from './failure.js';

/** What can stand in a header; what a key is, the platform says. */
const PRINTABLE = /^[\x21-\x7e]{1,200}$/;

/** The API key in `BORE_API_KEY`, to be used instead of a login. Never from the command line, which others can see. */
export function readApiKey(environment: NodeJS.ProcessEnv): string | undefined {
  const key = environment['BORE_API_KEY']?.trim();
  if (!key) return undefined;
  if (!PRINTABLE.test(key)) throw new Failure('BORE_API_KEY does not hold an API key.');
  return key;
}
