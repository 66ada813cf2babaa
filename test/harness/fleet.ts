import type { Api } from './api.js';
import { type BoreServerProcess, newDataDir, startBoreServer } from './bore-server.js';
import { type OpenedTunnel, Platform } from './platform.js';
import { until } from './until.js';

/** Public ports of each server. */
const PORTS = 100;
const FIRST_PORT = 10_000;
/** The same on every address, so that a server that is started again is where the others look for it. */
export const PEER_PORT = 7_837;

interface FleetOptions {
  /** The name that the servers share. */
  readonly name: string;
  /** One for each server: its control port, its public ports and its peer port are there. */
  readonly addresses: readonly [string, ...string[]];
  readonly controlPort?: number;
  readonly serverEnv?: NodeJS.ProcessEnv;
}

/** One backend and several bore-servers that share a public name, s1, s2, … */
export class Fleet {
  private constructor(
    readonly platform: Platform,
    readonly servers: BoreServerProcess[],
    private readonly dataDirs: string[],
    private readonly options: FleetOptions,
  ) {}

  /** Resolves when each of them knows all others. */
  static async start(options: FleetOptions): Promise<Fleet> {
    const { addresses, controlPort } = options;
    const [address] = addresses;
    const platform = await Platform.start({
      address,
      ports: portsOf(0),
      serverEnv: envOf(address, options),
      ...(controlPort !== undefined && { controlPort }),
    });
    const fleet = new Fleet(platform, [platform.server], [platform.dataDir], options);
    for (const index of addresses.keys()) {
      if (index === 0) continue;
      fleet.dataDirs.push(await newDataDir());
      fleet.servers.push(await fleet.start(index));
    }
    await fleet.settle();
    return fleet;
  }

  /** A server by its number, from 1. */
  server(number: number): BoreServerProcess {
    const server = this.servers[number - 1];
    if (!server) throw new Error(`there is no s${number}`);
    return server;
  }

  /** A tunnel on that server. */
  openAt(number: number, user: Api, body: object = {}): Promise<OpenedTunnel> {
    const { database } = this.platform;
    // the lowest port that no tunnel of the run has had: one may still be on its way out
    const next = database.query('SELECT max(port) AS port FROM tunnels WHERE server_id = $1', [`s${number}`]);
    return next.then(([row]) =>
      this.platform.open(user, { port: Number(row?.['port'] ?? portsOf(number - 1).min - 1) + 1, ...body }),
    );
  }

  /** Starts a server anew on the state that it has left. */
  async restart(number: number, { register = true } = {}): Promise<void> {
    this.servers[number - 1] = await this.start(number - 1, register);
  }

  /** Waits until every server knows all others. */
  async settle(): Promise<void> {
    for (const server of this.servers) {
      const known = async () => (await metric(server, 'bore_server_peers')) === this.servers.length - 1;
      await until(known, `${server.address} knows the others`);
    }
  }

  async stop(): Promise<void> {
    for (const server of this.servers.slice(1)) await server.stop();
    this.platform.server = this.server(1);
    await this.platform.stop();
  }

  private start(index: number, register = true): Promise<BoreServerProcess> {
    const { options, platform } = this;
    const address = options.addresses[index] ?? '';
    return startBoreServer({
      backend: platform.backend,
      serverId: `s${index + 1}`,
      address,
      ports: portsOf(index),
      dataDir: this.dataDirs[index] ?? '',
      env: envOf(address, options),
      register,
      ...(options.controlPort !== undefined && { controlPort: options.controlPort }),
    });
  }
}

/** A figure of a bore-server's `/metrics`; labels as they are written there. */
export async function metric(server: BoreServerProcess, name: string): Promise<number> {
  const text = await (await fetch(`${server.adminUrl}/metrics`)).text();
  const line = text.split('\n').find((candidate) => candidate.startsWith(`${name} `));
  return Number(line?.slice(name.length) ?? 0);
}

/** Of a server, counted from 0. */
export function portsOf(index: number): { min: number; max: number } {
  const min = FIRST_PORT + index * PORTS;
  return { min, max: min + PORTS - 1 };
}

function envOf(address: string, { name, serverEnv }: FleetOptions): NodeJS.ProcessEnv {
  return {
    BORE_HOST: name,
    BORE_PEER_PORT: String(PEER_PORT),
    BORE_PEER_HOST: address,
    BORE_PEER_BIND_ADDR: address,
    ...serverEnv,
  };
}
