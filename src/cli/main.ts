#!/usr/bin/env node
/**
 * borectl: from "I have a local port" to "here is its public address", in one command.
 */
import { Command, CommanderError, Option } from 'commander';
import { z } from 'zod';

import { buildVersion } from '../protocol/build-version.js';
import { Account } from './account.js';
import { enter, logOut } from './account-commands.js';
import { ApiClient } from './api-client.js';
import { readApiKey } from './api-key.js';
import { connections, platformUrl, port, seconds } from './arguments.js';
import { CredentialsStore } from './credentials.js';
import { Failure } from './failure.js';
import { openTunnel } from './open-command.js';
import { readPassword } from './password.js';
import { notice, surviveClosedOutput } from './terminal.js';
import { listTunnels, removeTunnel } from './tunnel-commands.js';

const DEFAULT_API = 'http://127.0.0.1:3000';

const OpenFlags = z.object({
  localHost: z.string(),
  name: z.string().optional(),
  port: z.number().optional(),
  location: z.string().optional(),
  ttl: z.number().optional(),
  maxConnections: z.number().optional(),
  keep: z.boolean().default(false),
  json: z.boolean().default(false),
});
const ListFlags = z.object({ json: z.boolean().default(false) });
const GlobalFlags = z.object({ api: z.string() });

function program(environment: NodeJS.ProcessEnv): Command {
  const borectl = new Command('borectl')
    .description('Public addresses for local TCP ports.')
    .version(buildVersion())
    .addOption(new Option('--api <url>', 'the platform').env('BORE_API').default(DEFAULT_API).argParser(platformUrl))
    .addHelpText(
      'after',
      '\nThe password is asked for, or read from BORE_PASSWORD or from a pipe. With an API key in BORE_API_KEY no login is needed.',
    )
    .exitOverride();
  const store = new CredentialsStore(environment);
  const platform = () => {
    const api = new ApiClient(GlobalFlags.parse(borectl.opts()).api);
    return { api, store, account: new Account(api, store) };
  };
  /** For what an API key may do too. */
  const account = () => new Account(platform().api, store, readApiKey(environment));

  for (const route of ['signup', 'login'] as const) {
    borectl
      .command(`${route} <email>`)
      .description(route === 'signup' ? 'make an account and log in' : 'log in')
      .action(async (email: string) => {
        const password = await readPassword(environment, { repeat: route === 'signup' });
        await enter(route, { email, password }, platform());
      });
  }
  borectl
    .command('logout')
    .description('end the login')
    .action(() => logOut(platform()));
  borectl
    .command('open')
    .description('give a local port a public address, for as long as this runs')
    .argument('<local port>', 'where something listens', port)
    .option('--name <name>', 'to know the tunnel by')
    .option('--port <port>', 'public port (default: any free one)', port)
    .option('--location <name>', 'preferred region or site')
    .option('--ttl <seconds>', 'close the tunnel after this time', seconds)
    .option('--max-connections <n>', 'visitors at once', connections)
    .option('--local-host <host>', 'where the local port is', 'localhost')
    .option('--keep', 'leave the tunnel open at the end')
    .option('--json', 'one line of JSON instead of the address')
    .action((localPort: number, flags: unknown) => openTunnel(account(), { localPort, ...OpenFlags.parse(flags) }));
  borectl
    .command('ls')
    .description('list your open tunnels')
    .option('--json', 'as JSON')
    .action((flags: unknown) => listTunnels(account(), ListFlags.parse(flags)));
  borectl
    .command('rm')
    .description('close a tunnel')
    .argument('<id or name>')
    .action((idOrName: string) => removeTunnel(account(), idOrName));
  return borectl;
}

/** Runs one command line and returns the exit code: 0 done, 1 refused or failed, 2 not understood. */
async function run(): Promise<number> {
  try {
    await program(process.env).parseAsync();
    return 0;
  } catch (error) {
    // commander has printed its own
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (!(error instanceof Failure)) throw error;
    notice(`borectl: ${error.message}`);
    return error.exitCode;
  }
}

surviveClosedOutput();
const exitCode = await run();
// what was printed first: a pipe may take it later
await new Promise((resolve) => process.stdout.write('', resolve));
process.exit(exitCode);
