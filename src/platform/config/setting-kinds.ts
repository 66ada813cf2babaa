/** What settings look like: text of the environment, and what becomes of it. */
import { isIP } from 'node:net';

import { z } from 'zod';

import { Secret } from './secret.js';

/** 32 characters: the least that holds 128 bits in any usual encoding, and what HMAC-SHA256 asks for (RFC 7518 §3.2). */
const SECRET_CHARS_MIN = 32;

export const flag = z.enum(['true', 'false', '1', '0']).transform((text) => text === 'true' || text === '1');
export const int = (min: number, max: number) => z.coerce.number().int().min(min).max(max);
export const port = int(1, 65_535);
export const list = z.string().transform((text) =>
  text
    .split(',')
    .map((item) => item.trim())
    .filter(Boolean),
);

/** A dotenv file does not run commands: `$(openssl …)` in it is that text, the same on every installation. */
const notACommand = (text: string) => !/\$\(|`/.test(text);
export const strong = z
  .string()
  .min(SECRET_CHARS_MIN, `must have at least ${SECRET_CHARS_MIN} characters, e.g. from: openssl rand -hex 32`)
  .refine(notACommand, 'holds a shell command as text: run the command and put its output here')
  .refine((text) => !/change[_-]?me|your_/i.test(text), 'is still the placeholder of the documentation');
export const secret = strong.transform((text) => new Secret(text));

export const password = z
  .string()
  .refine(notACommand, 'holds a shell command as text')
  .transform((text) => new Secret(text));

export const hostAndPort = z
  .string()
  .regex(/^[^\s:/]+:\d{1,5}$/, 'must be a list of host:port')
  .transform((text) => {
    const [host = '', digits] = text.split(':');
    return { host, port: Number(digits) };
  })
  .pipe(z.object({ host: z.string(), port: z.int().min(1).max(65_535) }));

/** Of a network of everybody, `X-Forwarded-For` would be whatever the caller likes. */
const isNarrow = (text: string) => !text.endsWith('/0');
export const proxyNetwork = z
  .union(
    [z.ipv4(), z.ipv6(), z.cidrv4(), z.cidrv6()],
    'must be a list of addresses and networks, such as 10.0.0.0/8, and never a name',
  )
  .refine((text) => isIP(text.split('/')[0] ?? '') !== 0, 'must be a list of addresses and networks')
  .refine(isNarrow, 'must not hold a network of everybody');

/** What a browser sends as `Origin`: nothing else would ever be equal to it. */
export const isOrigin = (text: string) => new URL(text).origin === text;

/** Where notifications are sent. All of it is a secret: the path, the query or the user name is what lets one in. */
export const webhookUrl = z
  .url({ protocol: /^https?$/, error: 'must be URLs that begin with https:// or http://' })
  .transform((text) => new Secret(text));

/** What signs webhooks: a key as standardwebhooks.com writes it, or any text that is long enough. */
export const webhookSecret = strong
  .refine(
    (text) =>
      !text.startsWith('whsec_') || /^whsec_(?:[A-Za-z\d+/]{4})*(?:[A-Za-z\d+/]{2}==|[A-Za-z\d+/]{3}=)?$/.test(text),
    'begins with whsec_, which must be followed by base64',
  )
  .transform((text) => new Secret(text));

export const network = z.union([z.cidrv4(), z.cidrv6()], 'must be a list of networks, such as 10.0.0.0/8');
