import { networkInterfaces } from 'node:os';

import { z } from 'zod';

import { CONTROL_PORT } from '../protocol/frames.js';
import { HostName, ListenPort } from '../protocol/plane-api.js';

/** Something that the user must put right; the message is a sentence that says how. */
export class StartError extends Error {
  override readonly name = 'StartError';
}

const port = z.coerce.number('must be a port number').pipe(ListenPort);

const PortRange = z
  .string()
  .regex(/^\d{1,5}[:-]\d{1,5}$/, 'must look like 10000:10999')
  .transform((text) => {
    const [min, max] = text.split(/[:-]/).map(Number);
    return { min, max };
  })
  .pipe(z.object({ min: ListenPort, max: ListenPort }))
  .refine(({ min, max }) => min <= max, 'must not begin above its end');

const Environment = z.object({
  PORT: port.default(3000),
  BORE_CONTROL_PORT: port.default(CONTROL_PORT),
  BORE_ADMIN_PORT: port.default(7836),
  BORE_PORT_RANGE: PortRange.default({ min: 10_000, max: 10_999 }),
  // a newcomer's laptop offers nothing to its network until somebody says so
  BORE_LOCAL_BIND: z.ipv4('must be an IPv4 address, such as 0.0.0.0').default('127.0.0.1'),
  BORE_HOST: HostName.optional(),
});

/** What may be chosen about a platform on one machine. */
export interface StartSettings {
  readonly apiPort: number;
  readonly controlPort: number;
  readonly adminPort: number;
  readonly portRange: { readonly min: number; readonly max: number };
  /** Address that the API, the control port and the tunnels are bound to. */
  readonly bind: string;
  /** As clients and visitors type it. */
  readonly host: string;
  /** As programs on this machine reach it. */
  readonly localHost: string;
}

/** @throws StartError naming the first variable that is wrong */
export function readStartSettings(environment: NodeJS.ProcessEnv): StartSettings {
  const present = Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== ''));
  const parsed = Environment.safeParse(present);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new StartError(`${String(issue?.path[0])} ${issue?.message}`);
  }
  const { PORT, BORE_CONTROL_PORT, BORE_ADMIN_PORT, BORE_PORT_RANGE, BORE_LOCAL_BIND, BORE_HOST } = parsed.data;
  const ports = Object.entries({ PORT, BORE_CONTROL_PORT, BORE_ADMIN_PORT });
  for (const [i, [name, port]] of ports.entries()) {
    const twin = ports.slice(i + 1).find(([, other]) => other === port);
    if (twin) throw new StartError(`${name} and ${twin[0]} are both ${port}: choose two ports`);
    if (BORE_PORT_RANGE.min <= port && port <= BORE_PORT_RANGE.max)
      throw new StartError(`${name} ${port} lies in BORE_PORT_RANGE, the ports of the tunnels: choose another`);
  }
  const everywhere = BORE_LOCAL_BIND === '0.0.0.0';
  return {
    apiPort: PORT,
    controlPort: BORE_CONTROL_PORT,
    adminPort: BORE_ADMIN_PORT,
    portRange: BORE_PORT_RANGE,
    bind: BORE_LOCAL_BIND,
    host: BORE_HOST ?? (everywhere ? outsideAddress() : BORE_LOCAL_BIND),
    localHost: everywhere ? '127.0.0.1' : BORE_LOCAL_BIND,
  };
}

/** The first address that others may know this machine by. */
function outsideAddress(): string {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return addresses.find(({ family, internal }) => family === 'IPv4' && !internal)?.address ?? '127.0.0.1';
}
