#!/usr/bin/env node
/**
 * `npm run preflight` (docs/deployment.md#validation): the checklist before an installation goes live. Reads the settings of a backend
 * from the environment, or from `.env`.
 */
import { existsSync } from 'node:fs';
import { loadEnvFile } from 'node:process';

import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { z } from 'zod';

import { ConfigError, readConfig } from '../platform/config/config.js';
import { byHand } from './by-hand.js';
import { preflight, type Result, runAll } from './preflight.js';
import { countsOf, jsonOf, textOf } from './report.js';
import { wrongSettings } from './settings-checks.js';

/** Bore-servers that are asked at `--bore-server`; all are asked without it. */
const BORE_SERVERS_MAX = 1_000;

const Flags = z.object({
  api: z.string().optional(),
  boreServer: z.array(z.string()).max(BORE_SERVERS_MAX).default([]),
  prometheus: z.string().optional(),
  alertmanager: z.string().optional(),
  backupDir: z.string().optional(),
  backupHours: z.number(),
  json: z.boolean().default(false),
});
type Flags = z.infer<typeof Flags>;

function httpUrl(text: string): string {
  if (!z.url({ protocol: /^https?$/ }).safeParse(text).success)
    throw new InvalidArgumentError('It must begin with https:// or http://.');
  return text.replace(/\/+$/, '');
}

function hours(text: string): number {
  const value = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (value < 1) throw new InvalidArgumentError('It must be a whole number of hours.');
  return value;
}

function parse(): Flags {
  const command = new Command('preflight')
    .description('looks at an installation before it goes live, and changes nothing')
    .exitOverride()
    .option('--api <url>', 'where users reach the API', httpUrl)
    .option(
      '--bore-server <url>',
      'admin address of a bore-server, again for each (default: as registered)',
      (text: string, before: string[]) => [...before, httpUrl(text)],
      [],
    )
    .option('--prometheus <url>', 'of the installation', httpUrl)
    .option('--alertmanager <url>', 'of the installation', httpUrl)
    .option('--backup-dir <folder>', 'where npm run backup keeps backups')
    .option('--backup-hours <n>', 'how old the latest may be', hours, 26)
    .option('--json', 'for programs')
    .parse();
  return Flags.parse(command.opts());
}

function look(flags: Flags): Promise<Result[]> {
  const { api, prometheus, alertmanager, backupDir, backupHours } = flags;
  const places = { api, boreServers: flags.boreServer, prometheus, alertmanager, backupDir, backupHours };
  try {
    return preflight(readConfig(process.env), places);
  } catch (error) {
    // the rest follows from them
    if (error instanceof ConfigError) return runAll([wrongSettings(error.message), byHand()]);
    throw error;
  }
}

/** Returns the exit code: 0 nothing failed, 1 something did, 2 the command line is not understood. */
async function run(): Promise<number> {
  if (existsSync('.env')) loadEnvFile('.env');
  let flags: Flags;
  try {
    flags = parse();
  } catch (error) {
    // commander has printed its own
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    throw error;
  }
  const results = await look(flags);
  process.stdout.write(`${flags.json ? jsonOf(results) : textOf(results)}\n`);
  return countsOf(results).failed > 0 ? 1 : 0;
}

process.exitCode = await run();
// the schema engine leaves a timer of 10 s behind
process.stdout.write('', () => process.exit());
