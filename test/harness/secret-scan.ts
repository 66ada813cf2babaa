import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';

import type { Redis } from 'ioredis';

/**
 * What must be in no log and in no table (G7), by the form that each kind of secret of ours has, and the very secrets and
 * passwords that the suites run with.
 */
const SECRETS: readonly { readonly kind: string; readonly pattern: RegExp }[] = [
  { kind: 'a tunnel token', pattern: /\btk_[\w-]{40,}/ },
  { kind: 'a refresh token', pattern: /\brt_[\w-]{40,}/ },
  { kind: 'an API key', pattern: /\bbk_[0-9A-Za-z]+_[0-9A-Za-z]{20,}/ },
  { kind: 'a JWT', pattern: /\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}/ },
  { kind: 'a key of the installation', pattern: /\b(jwt|internal|tunnel)-0123456789abcdef/ },
  { kind: 'a password', pattern: /correct horse battery|correct%20horse|correct\+horse/ },
];
const PASSWORD_HASH = { kind: 'a password hash', pattern: /\$argon2/ };

/** @throws Error that shows where the first secret stands, when the output of a service holds one. */
export function scanLog(text: string): void {
  scan(text, [...SECRETS, PASSWORD_HASH], 'the log');
}

/**
 * @param texts secrets of this installation alone
 * @throws Error that names the file, when one below `folder` holds a secret in clear.
 */
export async function scanFiles(folder: string, texts: readonly string[] = []): Promise<void> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  for (const entry of entries.filter((each) => each.isFile())) {
    const file = path.join(entry.parentPath, entry.name);
    const text = await readFile(file, 'latin1');
    scan(text, SECRETS, file);
    if (texts.some((secret) => text.includes(secret))) throw new Error(`${file} holds a secret of its installation`);
  }
}

/** @throws Error that names the table, when one holds a secret in clear. */
export async function scanDatabase(
  query: (sql: string) => Promise<Readonly<Record<string, unknown>>[]>,
): Promise<void> {
  const tables = await query(
    `SELECT format('%I.%I', table_schema, table_name) AS name FROM information_schema.tables
     WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')`,
  );
  for (const row of tables) {
    const name = String(row['name']);
    const rows = await query(`SELECT string_agg(t::text, E'\\n') AS text FROM (SELECT * FROM ${name} LIMIT 20000) t`);
    const text = textOf(rows[0]?.['text']);
    // what is stored as bytes is shown in hex
    const bytes = text.replaceAll(/\\x([0-9a-f]{2,})/g, (_, hex: string) => Buffer.from(hex, 'hex').toString('latin1'));
    scan(text, SECRETS, `the table ${name}`);
    scan(bytes, SECRETS, `the table ${name}`);
  }
}

/** @throws Error when a key or a value of a Redis holds a secret in clear. Ours are counters, marks, and jobs. */
export async function scanRedis(redis: Redis): Promise<void> {
  for (const key of await redis.keys('*')) {
    scan(`${key} ${JSON.stringify(await CONTENTS[await redis.type(key)]?.(redis, key))}`, SECRETS, 'Redis');
  }
}

/** By type; a key may have gone meanwhile, and its type is `none`. */
const CONTENTS: Record<string, (redis: Redis, key: string) => Promise<unknown>> = {
  string: (redis, key) => redis.get(key),
  hash: (redis, key) => redis.hgetall(key),
  list: (redis, key) => redis.lrange(key, 0, -1),
  set: (redis, key) => redis.smembers(key),
  zset: (redis, key) => redis.zrange(key, '0', '-1'),
  stream: (redis, key) => redis.call('XRANGE', key, '-', '+'),
};

const textOf = (value: unknown) => (typeof value === 'string' ? value : '');

function scan(text: string, kinds: typeof SECRETS, where: string): void {
  for (const { kind, pattern } of kinds) {
    const found = pattern.exec(text);
    if (!found) continue;
    const around = text.slice(Math.max(0, found.index - 200), found.index + 100);
    throw new Error(`${where} holds ${kind}: …${around}…`);
  }
}
