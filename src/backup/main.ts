/**
 * `npm run backup`, `npm run backup:verify`, `npm run backup:list` and `npm run restore` (docs/backup.md). Reads DB_* and BACKUP_*
 * from the environment, or from `.env`.
 */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { loadEnvFile } from 'node:process';

import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { z } from 'zod';

import { DIRECT_DATABASE_VARIABLES, directAddressOf } from '../platform/database/direct-address.js';
import type { DatabaseAddress } from '../platform/database/migrations.js';
import { listBackups, prune } from './backup-folder.js';
import { BackupError, reasonOf } from './backup-error.js';
import { PostgresTools } from './postgres-tools.js';
import { placeOf, restoreBackup, tellGoneBack } from './restore-backup.js';
import { takeBackup } from './take-backup.js';
import { verifyBackup } from './verify-backup.js';

const Environment = z.object({
  ...DIRECT_DATABASE_VARIABLES,
  DB_PASSWORD: z.string().optional(),
  BACKUP_DIR: z.string().default('backups'),
  BACKUP_AGE_RECIPIENT: z.string().optional(),
  BACKUP_AGE_IDENTITY_FILE: z.string().optional(),
  PG_BIN_DIR: z.string().optional(),
  PATH: z.string().optional(),
});
type Environment = z.output<typeof Environment>;

const Flags = z.object({ timeout: z.number() });
const BackupFlags = Flags.extend({ dir: z.string().optional(), keep: z.number(), keepDays: z.number() });
const RestoreFlags = Flags.extend({
  overwrite: z.boolean().default(false),
  otherDatabase: z.boolean().default(false),
});

const say = (line: string): void => void process.stdout.write(`${line}\n`);
const warn = (line: string): void => void process.stderr.write(`backup: warning: ${line}\n`);

function whole(min: number, max: number) {
  return (text: string): number => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : NaN;
    if (!(value >= min && value <= max))
      throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`);
    return value;
  };
}

function moment(text: string): string {
  if (z.iso.datetime({ offset: true }).safeParse(text).success) return text;
  throw new InvalidArgumentError('It must look like 2026-11-29T02:00:00Z.');
}

function program(env: Environment): Command {
  const tools = new PostgresTools({ binDir: env.PG_BIN_DIR, path: env.PATH });
  const command = new Command('backup').exitOverride();
  const subcommand = (name: string, what: string): Command =>
    command
      .command(name)
      .description(what)
      // a day at most: what takes longer wants base backups and the log (docs/backup.md)
      .option('--timeout <minutes>', 'give up after', whole(1, 1_440), 360);

  subcommand('backup', 'back the database up')
    .option('--dir <folder>', 'where to (default: BACKUP_DIR, or ./backups)')
    .option('--keep <n>', 'keep the latest so many', whole(1, 10_000), 7)
    .option('--keep-days <days>', 'and all that are not older', whole(0, 3_650), 7)
    .action(async (flags: unknown) => {
      const { dir = env.BACKUP_DIR, keep, keepDays, timeout } = BackupFlags.parse(flags);
      const startedAt = performance.now();
      const manifest = await takeBackup({
        address: addressOf(env),
        folder: dir,
        recipient: env.BACKUP_AGE_RECIPIENT,
        tools,
        signal: minutes(timeout),
      });
      const rows = Object.values(manifest.rows).reduce((sum, count) => sum + count, 0);
      say(`${dir}/${manifest.file}: ${rows} rows, ${manifest.bytes} bytes, ${since(startedAt)}`);
      for (const file of await prune(dir, manifest.database, { keep, keepDays })) say(`deleted: ${file}`);
    });
  subcommand('restore', 'bring a backup back')
    .argument('<dump>', 'its file')
    .option('--overwrite', 'delete what the database holds')
    .option('--other-database', 'the backup may be of a database of another name')
    .action(async (dump: string, flags: unknown) => {
      const { overwrite, otherDatabase, timeout } = RestoreFlags.parse(flags);
      const startedAt = performance.now();
      const address = addressOf(env);
      const { manifest, pending, leftOut, notAnalyzed } = await restoreBackup(dump, {
        address,
        overwrite,
        otherDatabase,
        onBegin: ({ takenAt }) => say(`restoring the state of ${takenAt} into ${placeOf(address)}`),
        tools,
        identity: await identityOf(env),
        signal: minutes(timeout),
      });
      say(`restored: the state of ${manifest.takenAt}, ${since(startedAt)}`);
      if (leftOut.length > 0) say(`left out: ${leftOut.join(', ')}: only a superuser may make this extension again`);
      if (notAnalyzed !== undefined) warn(`run ANALYZE, or the first minutes are slow: ${notAnalyzed}`);
      if (pending.length > 0) say(`it is of an older release: run npm run migrate:up (${pending.length} migrations)`);
    });
  subcommand('verify', 'check a backup')
    .argument('<dump>', 'its file')
    .action(async (dump: string, flags: unknown) => {
      const { timeout } = Flags.parse(flags);
      const { manifest, checked } = await verifyBackup(dump, {
        tools,
        identity: await identityOf(env),
        signal: minutes(timeout),
      });
      say(`${dump} is good (${checked}): the state of ${manifest.takenAt}`);
    });
  command
    .command('recovered')
    .description('after a recovery to a point in time: what a restore does for bore-servers and logins')
    .argument('<moment>', 'that it was recovered to, e.g. 2026-11-29T02:00:00Z', moment)
    .action(async (to: string) => {
      await tellGoneBack(addressOf(env), to);
      say(`the database knows that it has gone back to ${to}: start the backends`);
    });
  subcommand('list', 'list the backups, the latest first')
    .option('--dir <folder>', 'where (default: BACKUP_DIR, or ./backups)')
    .action(async (flags: unknown) => {
      const { dir = env.BACKUP_DIR } = BackupFlags.partial().parse(flags);
      for (const { dump, manifest } of await listBackups(dir)) {
        say(`${manifest.takenAt}  ${manifest.database}  ${manifest.bytes} bytes  ${dump}`);
      }
    });
  return command;
}

function addressOf(env: Environment): DatabaseAddress {
  if (env.DB_PASSWORD === undefined) throw new BackupError('DB_PASSWORD is missing');
  return { ...directAddressOf(env), password: env.DB_PASSWORD };
}

/** The secret key of age's file: the line that is no comment. */
async function identityOf({ BACKUP_AGE_IDENTITY_FILE: file }: Environment): Promise<string | undefined> {
  if (file === undefined) return undefined;
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new BackupError(`BACKUP_AGE_IDENTITY_FILE cannot be read: ${reasonOf(cause)}`, { cause });
  });
  const identity = text.split('\n').find((line) => line.startsWith('AGE-SECRET-KEY-'));
  if (identity === undefined) throw new BackupError('BACKUP_AGE_IDENTITY_FILE holds no secret key of age');
  return identity.trim();
}

const minutes = (count: number): AbortSignal => AbortSignal.timeout(count * 60_000);
const since = (startedAt: number): string => `${((performance.now() - startedAt) / 1000).toFixed(1)} s`;

/** Runs one command line and returns the exit code: 0 done, 1 failed, 2 not understood. */
async function run(): Promise<number> {
  if (existsSync('.env')) loadEnvFile('.env');
  const present = Object.fromEntries(Object.entries(process.env).filter(([, value]) => value !== ''));
  const environment = Environment.safeParse(present);
  if (!environment.success) {
    for (const issue of environment.error.issues) process.stderr.write(`${issue.path.join('.')} ${issue.message}\n`);
    return 1;
  }
  try {
    await program(environment.data).parseAsync();
    return 0;
  } catch (error) {
    // commander has printed its own
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (!(error instanceof BackupError)) throw error;
    process.stderr.write(`backup: ${error.message}\n`);
    return 1;
  }
}

process.exitCode = await run();
