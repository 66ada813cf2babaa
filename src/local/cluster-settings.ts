import { z } from 'zod';

import { ListenPort } from '../protocol/plane-api.js';
import { onePort, portsOf, type WantedPorts } from './start-ports.js';
import { readStartSettings, StartError, type StartSettings } from './start-settings.js';

/** How many backends, and how many bore-servers. */
export const MACHINES = 3;

const port = (otherwise: number) => z.coerce.number('must be a port number').pipe(ListenPort).default(otherwise);

const Environment = z.object({
  BORE_PEER_PORT: port(7837),
  CLUSTER_DB_PORT: port(5433),
  CLUSTER_DB_REPLICA_PORT: port(5434),
  CLUSTER_REDIS_PORT: port(6380),
  CLUSTER_PROMETHEUS_PORT: port(9090),
});

/** A loopback address that stands for a machine: a backend and a bore-server are there, on the usual ports. */
export interface Machine {
  readonly name: string;
  readonly address: string;
  readonly portRange: { readonly min: number; readonly max: number };
}

/** What may be chosen about a cluster on one machine. Its public address is `bind`. */
export interface ClusterSettings extends StartSettings {
  readonly machines: readonly Machine[];
  readonly peerPort: number;
  readonly databasePort: number;
  readonly replicaPort: number;
  readonly redisPort: number;
  readonly prometheusPort: number;
}

/** @throws StartError naming the first variable that is wrong */
export function readClusterSettings(environment: NodeJS.ProcessEnv): ClusterSettings {
  const settings = readStartSettings({ BORE_PORT_RANGE: '10000:10299', ...present(environment) });
  const parsed = Environment.safeParse(present(environment));
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new StartError(`${String(issue?.path[0])} ${issue?.message}`);
  }
  const { bind, portRange } = settings;
  const [a, b, c, last] = bind.split('.').map(Number);
  if (a !== 127 || last === undefined || last + 10 + MACHINES > 254)
    throw new StartError('BORE_LOCAL_BIND must be an address of this machine alone, from 127.0.0.1 to 127.255.255.241');
  const size = Math.floor((portRange.max - portRange.min + 1) / MACHINES);
  if (size < 1) throw new StartError(`BORE_PORT_RANGE must have at least ${MACHINES} ports`);
  return {
    ...settings,
    machines: Array.from({ length: MACHINES }, (_, i) => {
      const min = portRange.min + i * size;
      // 127.0.0.11 for 10.0.0.11 of deploy/nginx
      return { name: `s${i + 1}`, address: `127.${b}.${c}.${last + 10 + i}`, portRange: { min, max: min + size - 1 } };
    }),
    peerPort: parsed.data.BORE_PEER_PORT,
    databasePort: parsed.data.CLUSTER_DB_PORT,
    replicaPort: parsed.data.CLUSTER_DB_REPLICA_PORT,
    redisPort: parsed.data.CLUSTER_REDIS_PORT,
    prometheusPort: parsed.data.CLUSTER_PROMETHEUS_PORT,
  };
}

function present(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== undefined && value !== ''));
}

/** Every port that a cluster listens on. */
export function clusterPorts(settings: ClusterSettings): WantedPorts[] {
  const { machines, controlPort, apiPort, adminPort, peerPort, bind } = settings;
  const outer = portsOf(settings).filter(({ variable }) => variable !== 'BORE_ADMIN_PORT');
  const inner = machines.flatMap(({ address, portRange }) => [
    onePort('PORT', apiPort, address, 'a backend'),
    onePort('BORE_CONTROL_PORT', controlPort, address, 'a bore-server'),
    onePort('BORE_ADMIN_PORT', adminPort, address, 'a bore-server’s health and orders'),
    onePort('BORE_PEER_PORT', peerPort, address, 'a bore-server’s peers'),
    { ...portRange, host: address, variable: 'BORE_PORT_RANGE' },
  ]);
  return [
    ...outer,
    ...inner,
    onePort('CLUSTER_DB_PORT', settings.databasePort, '127.0.0.1', 'PostgreSQL'),
    onePort('CLUSTER_DB_REPLICA_PORT', settings.replicaPort, '127.0.0.1', 'PostgreSQL’s replica'),
    onePort('CLUSTER_REDIS_PORT', settings.redisPort, '127.0.0.1', 'Redis'),
    onePort('CLUSTER_PROMETHEUS_PORT', settings.prometheusPort, bind, 'Prometheus'),
  ];
}
