/** `npm run migrate:up`, `migrate:status`, `migrate:new -- <name>`. Reads DB_* from the environment, or from `.env`. */
import { existsSync } from 'node:fs';
import { loadEnvFile } from 'node:process';

import { z } from 'zod';

import { DIRECT_DATABASE_VARIABLES, directAddressOf } from './direct-address.js';
import { type DatabaseAddress, migrateUp, migrationStatus, writeMigration } from './migrations.js';

const Environment = z
  .object({ ...DIRECT_DATABASE_VARIABLES, DB_PASSWORD: z.string({ error: 'is missing' }) })
  .transform((env): DatabaseAddress => ({ ...directAddressOf(env), password: env.DB_PASSWORD }));

const say = (line: string): void => void process.stdout.write(`${line}\n`);

async function run([command, name]: readonly string[]): Promise<number> {
  if (existsSync('.env')) loadEnvFile('.env');
  const environment = Environment.safeParse(process.env);
  if (!environment.success) {
    for (const issue of environment.error.issues) process.stderr.write(`${issue.path.join('.')} ${issue.message}\n`);
    return 1;
  }
  const address = environment.data;
  switch (command) {
    case 'up': {
      const applied = await migrateUp(address);
      say(applied.length === 0 ? 'the database is up to date' : `applied: ${applied.join(', ')}`);
      return 0;
    }
    case 'status': {
      const status = await migrationStatus(address);
      const problems = Object.entries(status).filter(([, names]) => names.length > 0);
      for (const [kind, names] of problems) say(`${kind}: ${names.join(', ')}`);
      if (problems.length === 0) say('the database is up to date');
      return problems.length === 0 ? 0 : 1;
    }
    case 'new': {
      if (name === undefined || !/^[a-z0-9_]+$/.test(name)) break;
      const folder = await writeMigration(address, name);
      say(folder === null ? 'schema.prisma and the database agree: nothing to write' : `written: ${folder}`);
      return 0;
    }
    default:
  }
  process.stderr.write('usage: migrate up | status | new <name_in_lower_case>\n');
  return 2;
}

try {
  process.exitCode = await run(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
// the engine leaves a timer of 10 s behind, for a lock that it has long had
process.stdout.write('', () => process.exit());
