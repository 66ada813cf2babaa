import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { open, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { parseEnv } from 'node:util';

import { z } from 'zod';

import { StartError } from './start-settings.js';

/** 256 bits, as hexadecimal digits, which no dotenv parser and no shell reads in another way. */
const newSecret = (): string => randomBytes(32).toString('hex');

const Secrets = z.object({
  JWT_SECRET: z.string().min(1),
  INTERNAL_API_KEY: z.string().min(1),
  TUNNEL_KEY_SECRET: z.string().min(1),
  DB_PASSWORD: z.string().min(1),
  ADMIN_EMAIL: z.string().min(1),
  ADMIN_PASSWORD: z.string().min(1),
  /** Of `npm run cluster` alone: older files lack it. */
  REDIS_PASSWORD: z.string().min(1).default(newSecret),
  /** Not secret: it stands here so that this one file is what `migrate:status` and psql need. */
  DB_PORT: z.coerce.number().int().min(1).max(65_535),
});

/** What `npm start` or `npm run cluster` made up on its first start. */
export type Secrets = Readonly<z.output<typeof Secrets>>;

/** Where they are kept, in the form of a `.env` file. */
export function secretsFile(stateDir: string): string {
  return path.join(stateDir, 'secrets.env');
}

/** The secrets of an earlier start, or `null` before the first. */
export async function readSecrets(stateDir: string): Promise<Secrets | null> {
  const file = secretsFile(stateDir);
  if (!existsSync(file)) {
    if (existsSync(path.join(stateDir, 'postgres')))
      throw new StartError(`${file} is gone, and the database beside it cannot be opened without: put it back`);
    return null;
  }
  const parsed = Secrets.safeParse(parseEnv(await readFile(file, 'utf8')));
  if (!parsed.success) throw new StartError(`${file} lacks a valid ${String(parsed.error.issues[0]?.path[0])}`);
  return parsed.data;
}

/** New secrets, not written yet. */
export function newSecrets(databasePort: number): Secrets {
  return {
    JWT_SECRET: newSecret(),
    INTERNAL_API_KEY: newSecret(),
    TUNNEL_KEY_SECRET: newSecret(),
    DB_PASSWORD: newSecret(),
    REDIS_PASSWORD: newSecret(),
    ADMIN_EMAIL: 'admin@bore.local',
    // to be typed by a person: 96 bits
    ADMIN_PASSWORD: randomBytes(12).toString('hex'),
    DB_PORT: databasePort,
  };
}

/** Writes them so that a power cut leaves the old file or the new one, readable for this user alone. */
export async function writeSecrets(stateDir: string, secrets: Secrets): Promise<void> {
  const file = secretsFile(stateDir);
  const draft = `${file}.new`;
  const lines = Object.entries(secrets).map(([name, value]) => `${name}=${value}\n`);
  try {
    await rm(draft, { force: true });
    const handle = await open(draft, 'wx', 0o600);
    try {
      await handle.writeFile(
        `# Made by npm start or npm run cluster. Without this file the database beside it cannot be read.\n${lines.join('')}`,
      );
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(draft, file);
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  }
}
