import { setMaxListeners } from 'node:events';

import { keyOfSecret } from '../protocol/challenge.js';
import { type Account, isCode } from './account.js';
import { OpenedTunnel, Tunnel } from './api-answers.js';
import { ApiRefusal, ApiUnavailable } from './api-client.js';
import { Carrier, type CarryEnd, type Place, type TunnelStatus } from './carrier.js';
import { Failure } from './failure.js';
import { SECOND_SIGNAL_MS, VISITORS_MAX } from './limits.js';
import { notice, print, printable } from './terminal.js';
import { closeTunnel } from './tunnel-commands.js';
import { Visitors } from './visitors.js';

export interface OpenOptions {
  readonly localHost: string;
  readonly localPort: number;
  readonly name?: string | undefined;
  readonly port?: number | undefined;
  readonly location?: string | undefined;
  readonly ttl?: number | undefined;
  readonly maxConnections?: number | undefined;
  /** Leave the tunnel open at the end. */
  readonly keep: boolean;
  readonly json: boolean;
}

const CLOSE_REASONS: Partial<Record<string, string>> = {
  deleted: 'somebody has deleted it',
  relocated: 'it has moved to another bore-server, and this login cannot see where',
  expired: 'its time to live is over',
  abandoned: 'nobody carried it for too long',
  'invalid secret': 'the bore-server does not know it any more',
};

/** `borectl open`: opens a tunnel and carries it until Ctrl-C, or until it is closed from elsewhere. */
export async function openTunnel(account: Account, options: OpenOptions): Promise<void> {
  const stop = stopSignal();
  const tunnel = await account.call(OpenedTunnel, {
    method: 'POST',
    path: 'tunnels',
    body: {
      localPort: options.localPort,
      name: options.name,
      port: options.port,
      location: options.location,
      ttlSeconds: options.ttl,
      maxConnections: options.maxConnections,
      relocate: true,
    },
  });
  let end: CarryEnd;
  let place = placeOf(tunnel);
  try {
    end = await carry(account, tunnel, options, stop.signal, (present) => (place = present));
  } finally {
    // the streams that are left
    stop.abort();
  }
  await finish(end, account, { ...tunnel, command: commandAt(tunnel, place) }, options);
}

function carry(
  account: Account,
  tunnel: OpenedTunnel,
  options: OpenOptions,
  signal: AbortSignal,
  onPlace: (place: Place) => void,
): Promise<CarryEnd> {
  const key = keyOfSecret(tunnel.token);
  const local = { host: options.localHost, port: options.localPort };
  const carrier = new Carrier({
    place: placeOf(tunnel),
    key,
    visitors: new Visitors(local, key, signal),
    status: () => statusOf(account, tunnel.id),
    onConnected: (place, again) => {
      onPlace(place);
      if (again) notice('Connected again.');
      else announce(tunnel, place, options);
    },
    signal,
  });
  return carrier.run();
}

/** The one line that scripts read; again only when the public address has changed. */
function announce(tunnel: OpenedTunnel, place: Place, { json, keep, localHost, localPort }: OpenOptions): void {
  const { id, name, expiresAt } = tunnel;
  const { host, controlPort, port, publicAddress, location } = place;
  const command = commandAt(tunnel, place);
  if (json) {
    const line = {
      id,
      name,
      host,
      port,
      publicAddress,
      controlPort,
      location,
      localHost,
      localPort,
      expiresAt,
      command,
    };
    print(JSON.stringify(line));
  } else {
    print(`Public address: ${printable(publicAddress)}`);
  }
  notice(`It leads to ${localHost}:${localPort}. Ctrl-C ${keep ? 'leaves the tunnel open' : 'closes the tunnel'}.`);
}

async function finish(end: CarryEnd, account: Account, tunnel: OpenedTunnel, { keep }: OpenOptions): Promise<void> {
  switch (end.kind) {
    case 'closed':
      throw new Failure(`The tunnel is closed: ${CLOSE_REASONS[end.reason] ?? end.reason}.`);
    case 'taken-over':
      throw new Failure('Another client has taken this tunnel over and carries it now.');
    case 'secret-invalid':
      throw new Failure('The bore-server does not accept the secret of this tunnel any more.');
    case 'stopped':
      if (keep) return notice(`The tunnel stays open. Carry it again with: ${tunnel.command}`);
      try {
        await closeTunnel(account, tunnel.id);
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        throw new Failure(`The tunnel could not be closed; later: borectl rm ${tunnel.id}. ${error.message}`);
      }
      notice('Closed the tunnel.');
  }
}

async function statusOf(account: Account, id: string): Promise<TunnelStatus> {
  try {
    const tunnel = await account.call(Tunnel, { method: 'GET', path: `tunnels/${id}` });
    if (tunnel.state === 'closed') return { kind: 'closed', reason: tunnel.closeReason ?? 'closed' };
    return { kind: 'open', place: placeOf(tunnel) };
  } catch (error) {
    if (isCode(error, 'NOT_FOUND')) return { kind: 'closed', reason: 'deleted' };
    if (error instanceof ApiUnavailable) return { kind: 'unknown' };
    if (error instanceof ApiRefusal) return { kind: isPassing(error) ? 'unknown' : 'withheld' };
    if (error instanceof Failure) return { kind: 'withheld' };
    throw error;
  }
}

function isPassing({ problem: { status } }: ApiRefusal): boolean {
  return status >= 500 || status === 429;
}

function placeOf({ host, controlPort, port, publicAddress, location }: Tunnel): Place {
  return { host, controlPort, port, publicAddress, location };
}

/** The line for a stock client, of a tunnel that may have moved since it was opened. */
function commandAt({ command, host, port }: OpenedTunnel, place: Place): string {
  return command.replace(` --to ${host} --port ${port} `, ` --to ${place.host} --port ${place.port} `);
}

/** Aborted by Ctrl-C, by `kill`, and when the terminal goes; a second time, the process ends at once. */
function stopSignal(): AbortController {
  const stop = new AbortController();
  // each visitor listens, and so do the connection and the pause between two
  setMaxListeners(VISITORS_MAX + 2, stop.signal);
  let stoppedAt: number | undefined;
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      stoppedAt ??= performance.now();
      if (performance.now() - stoppedAt > SECOND_SIGNAL_MS) process.exit(130);
      stop.abort();
    });
  }
  return stop;
}
