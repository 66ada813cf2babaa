/**
 * The form of an API key: `bk_<id>_<secret><checksum>`, all base62.
 *
 * - id, 22 characters: the key's UUID, to find it by; no secret
 * - secret, 32 characters: 190 random bits
 * - checksum, 6 characters: CRC-32 of everything before it, so that a leak scanner knows a key from a word that looks like one, and a
 *   key with a slip in it is refused without asking the database
 */
import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';

const BASE62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const ID_CHARS = 22;
const SECRET_CHARS = 32;
const CHECKSUM_CHARS = 6;
const FORM = new RegExp(
  `^(bk_([0-9A-Za-z]{${ID_CHARS}})_([0-9A-Za-z]{${SECRET_CHARS}}))([0-9A-Za-z]{${CHECKSUM_CHARS}})$`,
);
/** What every API key begins with, and no access token. */
const PREFIX = 'bk_';
const UUID_MAX = 2n ** 128n - 1n;

/** The parts of a key that is well formed. */
export interface ApiKeyParts {
  /** UUID. */
  readonly id: string;
  readonly secret: string;
}

/** Whether a bearer token is meant to be an API key. */
export function looksLikeApiKey(token: string): boolean {
  return token.startsWith(PREFIX);
}

/** The key for the UUID `id` that is made of `random`, 32 bytes that nobody else knows. */
export function apiKeyOf(id: string, random: Buffer): ApiKeyParts & { readonly key: string } {
  // 256 bits folded into 190: no secret is likelier than another by more than 2^-65
  const secret = toBase62(BigInt(`0x${random.toString('hex')}`) % 62n ** BigInt(SECRET_CHARS), SECRET_CHARS);
  const body = `${PREFIX}${toBase62(BigInt(`0x${id.replaceAll('-', '')}`), ID_CHARS)}_${secret}`;
  return { id, secret, key: body + checksumOf(body) };
}

/** The parts of a key, or `null` when it was never one of ours: wrong form or wrong checksum. */
export function parseApiKey(key: string): ApiKeyParts | null {
  const [, body = '', id = '', secret = '', checksum] = FORM.exec(key) ?? [];
  if (checksum === undefined || checksumOf(body) !== checksum) return null;
  const number = fromBase62(id);
  if (number > UUID_MAX) return null;
  const hex = number.toString(16).padStart(32, '0');
  return { id: hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5'), secret };
}

/** What is stored of a key's secret: random enough for a plain hash (OWASP ASVS 5.0, 6.5.2). */
export function hashApiKeySecret(secret: string): Buffer<ArrayBuffer> {
  return Buffer.from(createHash('sha256').update(secret).digest());
}

function checksumOf(body: string): string {
  return toBase62(BigInt(crc32(body)), CHECKSUM_CHARS);
}

function toBase62(number: bigint, chars: number): string {
  let [text, rest] = ['', number];
  while (rest > 0n) {
    text = `${BASE62[Number(rest % 62n)]}${text}`;
    rest /= 62n;
  }
  return text.padStart(chars, '0');
}

function fromBase62(text: string): bigint {
  return Array.from(text, (char) => BigInt(BASE62.indexOf(char))).reduce((number, digit) => number * 62n + digit, 0n);
}
