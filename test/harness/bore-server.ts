import { mkdtemp } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { inject } from 'vitest';

import { type Backend, SECRETS } from './backend.js';
import { RunningProcess } from './running-process.js';
import { scanLog } from './secret-scan.js';

const MAIN = fileURLToPath(new URL('../../dist/bore-server/main.js', import.meta.url));

interface BoreServerOptions {
  /** Tunnels are authorised by it; without: stand-alone, under `secret`. */
  readonly backend?: Backend;
  readonly secret?: string;
  readonly serverId?: string;
  readonly ports: { readonly min: number; readonly max: number };
  /** Stock clients know 7835 only; give every server an address of its own then. Default: a free port. */
  readonly controlPort?: number;
  readonly address?: string;
  /** Where it keeps its state; default: a new folder, which the run removes at its end. */
  readonly dataDir?: string;
  /** Whether to wait until the backend knows it; default: yes. */
  readonly register?: boolean;
  readonly env?: NodeJS.ProcessEnv;
  /** How many descriptors it may have (`ulimit -n`, soft and hard); default: as many as we. */
  readonly descriptors?: number;
  /** Another build's `bore-server/main.js`; default: that of `dist`. */
  readonly main?: string;
}

/** A bore-server process on the loopback network. */
export class BoreServerProcess extends RunningProcess {
  address = '127.0.0.1';
  controlPort = 0;
  adminUrl = '';

  protected override checkOutput(): void {
    scanLog(this.output());
  }
}

/** Starts `dist/bore-server/main.js` and resolves when it takes clients (with a backend: when it is registered). */
export async function startBoreServer(options: BoreServerOptions): Promise<BoreServerProcess> {
  const { backend, secret, serverId = 's1', ports, controlPort = 0, address = '127.0.0.1', env } = options;
  const [command, args] = limited(options.main ?? MAIN, options.descriptors);
  const server = new BoreServerProcess(command, args, {
    PATH: process.env['PATH'],
    BORE_PORT_RANGE: `${ports.min}:${ports.max}`,
    BORE_BIND_ADDR: address,
    BORE_HOST: address,
    BORE_ADMIN_BIND_ADDR: address,
    BORE_CONTROL_PORT: String(controlPort),
    BORE_ADMIN_PORT: '0',
    BORE_DATA_DIR: options.dataDir ?? (await newDataDir()),
    // one address stands for all clients of the world
    BORE_FAILURES_BEFORE_BAN: '100000',
    BORE_CONNECTIONS_PER_SECOND_PER_SOURCE: '100000',
    BORE_DRAIN_SECONDS: '1',
    ...(secret !== undefined && { BORE_SECRET: secret }),
    ...(backend && {
      BORE_BACKEND_URL: backend.url,
      BORE_BACKEND_API_KEY: SECRETS.INTERNAL_API_KEY,
      BORE_SERVER_ID: serverId,
    }),
    ...env,
  });
  const output = await server.waitFor(/"msg":"listening"/);
  const [, control, admin] = /"controlPort":(\d+),"adminPort":(\d+)/.exec(output) ?? [];
  server.address = address;
  server.controlPort = Number(control);
  server.adminUrl = `http://${address}:${admin}`;
  if (backend && options.register !== false) await server.waitFor('"msg":"registered"');
  return server;
}

/** A folder for the state of one bore-server. */
export function newDataDir(): Promise<string> {
  return mkdtemp(path.join(inject('scratch'), 'bore-server-'));
}

/** The command line of a bore-server that may have so many descriptors. Node would raise a soft limit to the hard one. */
function limited(main: string, descriptors: number | undefined): [command: string, args: string[]] {
  if (descriptors === undefined) return [process.execPath, [main]];
  return ['sh', ['-c', `ulimit -n ${descriptors} && exec "$@"`, 'sh', process.execPath, main]];
}
