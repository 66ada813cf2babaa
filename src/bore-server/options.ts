import { Command, Option } from 'commander';
import { z } from 'zod';

import { CONTROL_PORT } from '../protocol/frames.js';
import { HostName, Location, ServerId } from '../protocol/plane-api.js';
import { Cidr } from '../protocol/tunnel-settings.js';
import { Limits } from './limits.js';
import { Ordinal, PortRange, shareOf } from './port-range.js';

const port = z.coerce.number().int().min(0).max(65_535);

const Flags = z.object({
  backendUrl: z.url({ protocol: /^https?$/ }).optional(),
  backendApiKey: z
    .string()
    .transform((text) =>
      text
        .split(',')
        .map((key) => key.trim())
        .filter(Boolean),
    )
    .pipe(z.array(z.string().min(32, 'must have at least 32 characters')).min(1))
    .optional(),
  serverId: ServerId.optional(),
  secret: z.string().min(1, 'must not be empty').optional(),
  portRange: PortRange,
  portsPerServer: z.coerce.number().int().min(1).max(65_535).optional(),
  ordinal: Ordinal.optional(),
  host: HostName.optional(),
  location: Location.optional(),
  maxTunnels: z.coerce.number().int().min(1).max(65_535).optional(),
  maxBandwidthMbps: z.coerce.number().int().min(1).max(1_000_000).optional(),
  controlPort: port,
  bindAddr: z.union([z.ipv4(), z.ipv6()], 'must be an IP address'),
  bindTunnels: z.union([z.ipv4(), z.ipv6()], 'must be an IP address').optional(),
  adminPort: port,
  adminBindAddr: z.union([z.ipv4(), z.ipv6()], 'must be an IP address'),
  adminUrl: z.url({ protocol: /^https?$/ }).optional(),
  metricsToken: z.string().min(32, 'must have at least 32 characters').optional(),
  peerPort: port.optional(),
  peerHost: HostName.optional(),
  peerBindAddr: z.union([z.ipv4(), z.ipv6()], 'must be an IP address'),
  dataDir: z.string().min(1).optional(),
  proxyProtocolFrom: z
    .string()
    .transform((text) =>
      text
        .split(',')
        .map((cidr) => cidr.trim())
        .filter(Boolean),
    )
    .pipe(z.array(Cidr))
    .default([]),
  logLevel: z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']),
});

/** Tunnels are authorised by backends. */
export interface BackendMode {
  readonly url: string;
  /** The first is sent; all are accepted on the admin surface. */
  readonly apiKeys: readonly string[];
  readonly serverId: string;
}

/** What the flags and the environment say, parsed. */
export interface Options extends Omit<
  z.output<typeof Flags>,
  'backendUrl' | 'backendApiKey' | 'serverId' | 'secret' | 'portsPerServer' | 'ordinal' | 'bindTunnels' | 'dataDir'
> {
  readonly bindTunnels: string;
  /** Where the state file is kept. */
  readonly dataDir: string;
  readonly limits: Limits;
  /** Either backends, or one secret for everybody (stand-alone). */
  readonly access:
    | { readonly backend: BackendMode; readonly secret?: undefined }
    | { readonly backend?: undefined; readonly secret: string };
}

/** A flag is missing or wrong; the message is a sentence for whoever typed it. */
export class OptionsError extends Error {
  override readonly name = 'OptionsError';
}

/**
 * Reads the command line (`argv` without node and script) and the environment; a flag wins over its variable. Commander
 * prints `--help` and ends the process by itself.
 * @throws OptionsError
 */
export function readOptions(argv: readonly string[]): Options {
  const command = new Command('bore-server')
    .description('Public end of TCP tunnels, for unmodified bore clients.')
    .addOption(flag('--backend-url <url>', 'control plane that authorises tunnels', 'BORE_BACKEND_URL'))
    .addOption(
      flag(
        '--backend-api-key <key>',
        'internal key; better given as the variable, which ps does not show',
        'BORE_BACKEND_API_KEY',
      ),
    )
    .addOption(flag('--server-id <id>', 'this server’s id at the control plane', 'BORE_SERVER_ID'))
    .addOption(flag('--secret <secret>', 'stand-alone: no control plane, one secret for every client', 'BORE_SECRET'))
    .addOption(flag('--port-range <min:max>', 'public ports, both inclusive', 'BORE_PORT_RANGE').default('10000:20000'))
    .addOption(
      flag(
        '--ports-per-server <n>',
        'the range is shared: each server has so many ports of it, in the order of their ordinals',
        'BORE_PORTS_PER_SERVER',
      ),
    )
    .addOption(
      flag(
        '--ordinal <n>',
        'this server’s place among those that share the range, from 0, or a name that ends in it',
        'BORE_ORDINAL',
      ),
    )
    .addOption(flag('--host <name>', 'public name, as clients will type it', 'BORE_HOST'))
    .addOption(flag('--location <name>', 'region or site', 'BORE_LOCATION'))
    .addOption(flag('--max-tunnels <n>', 'tunnels at once', 'BORE_MAX_TUNNELS'))
    .addOption(flag('--max-bandwidth-mbps <n>', 'bandwidth that placement may expect', 'BORE_MAX_BANDWIDTH_MBPS'))
    .addOption(
      flag('--control-port <port>', 'port for clients; stock clients know 7835 only', 'BORE_CONTROL_PORT').default(
        String(CONTROL_PORT),
      ),
    )
    .addOption(flag('--bind-addr <ip>', 'address for clients', 'BORE_BIND_ADDR').default('0.0.0.0'))
    .addOption(flag('--bind-tunnels <ip>', 'address for visitors (default: as for clients)', 'BORE_BIND_TUNNELS'))
    .addOption(
      flag('--admin-port <port>', 'health, metrics, and orders from backends', 'BORE_ADMIN_PORT').default('7836'),
    )
    .addOption(flag('--admin-bind-addr <ip>', 'address for these', 'BORE_ADMIN_BIND_ADDR').default('0.0.0.0'))
    .addOption(
      flag('--admin-url <url>', 'where backends reach them (default: http://<host>:<admin port>)', 'BORE_ADMIN_URL'),
    )
    .addOption(
      flag(
        '--metrics-token <token>',
        'who may see metrics (default: everybody who can reach them); better given as the variable',
        'BORE_METRICS_TOKEN',
      ),
    )
    .addOption(
      flag(
        '--peer-port <port>',
        'port for other servers of the same public name; none: the name is this server’s alone',
        'BORE_PEER_PORT',
      ),
    )
    .addOption(flag('--peer-host <name>', 'where they reach it, on a private network', 'BORE_PEER_HOST'))
    .addOption(flag('--peer-bind-addr <ip>', 'address for them', 'BORE_PEER_BIND_ADDR').default('0.0.0.0'))
    .addOption(
      flag(
        '--data-dir <folder>',
        'where grants and unreported usage are kept (default: the working directory)',
        'BORE_DATA_DIR',
      ),
    )
    .addOption(
      flag(
        '--proxy-protocol-from <cidrs>',
        'load balancers, comma-separated, whose connections begin with a PROXY protocol header',
        'BORE_PROXY_PROTOCOL_FROM',
      ),
    )
    .addOption(
      flag('--log-level <level>', 'fatal, error, warn, info, debug, trace or silent', 'BORE_LOG_LEVEL').default('info'),
    );
  const defaults = Limits.parse({});
  for (const name of Limits.keyof().options) {
    const variable = `BORE_${name.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
    const help = Limits.shape[name].description ?? '';
    command.addOption(flag(`${flagName(name)} <n>`, help, variable).default(String(defaults[name])));
  }
  command.parse([...argv], { from: 'user' });

  const { backendUrl, backendApiKey, serverId, secret, portsPerServer, ordinal, bindTunnels, dataDir, ...rest } = check(
    Flags,
    command,
  );
  if (rest.peerPort !== undefined && (secret !== undefined || rest.peerHost === undefined))
    throw new OptionsError('--peer-port needs --peer-host, and a control plane to tell other servers of it');
  const portRange = shareOf(rest.portRange, portsPerServer, ordinal);
  if (typeof portRange === 'string') throw new OptionsError(portRange);
  return {
    ...rest,
    portRange,
    bindTunnels: bindTunnels ?? rest.bindAddr,
    dataDir: dataDir ?? process.cwd(),
    limits: check(Limits, command),
    access: accessOf(backendUrl, backendApiKey, serverId, secret),
  };
}

/** @throws OptionsError naming the flag */
function check<T>(schema: z.ZodType<T>, command: Command): T {
  const parsed = schema.safeParse(command.opts());
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new OptionsError(`${flagName(String(issue?.path[0]))} ${issue?.message}`);
}

function accessOf(url?: string, apiKeys?: string[], serverId?: string, secret?: string): Options['access'] {
  if (secret !== undefined) {
    if (url ?? apiKeys ?? serverId)
      throw new OptionsError(
        '--secret is for running without a control plane: leave out --backend-url, --backend-api-key and --server-id',
      );
    return { secret };
  }
  const missing = Object.entries({ '--backend-url': url, '--backend-api-key': apiKeys, '--server-id': serverId }).find(
    ([, value]) => value === undefined,
  );
  if (missing)
    throw new OptionsError(
      `${missing[0]} is missing (or --secret, to run without a control plane): a server without either would be open to everybody`,
    );
  return { backend: { url: url ?? '', apiKeys: apiKeys ?? [], serverId: serverId ?? '' } };
}

function flag(flags: string, description: string, variable: string): Option {
  return new Option(flags, description).env(variable);
}

function flagName(property: string): string {
  return `--${property.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}
