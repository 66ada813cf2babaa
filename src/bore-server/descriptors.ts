import { readFileSync } from 'node:fs';

import type { Logger } from 'pino';

import type { Limits } from './limits.js';

/** Whatever the limit: for listening sockets, the state file, calls to the control plane, and the operator. */
const RESERVED_MIN = 64;
/** A handshake becomes a visitor's stream: without some of them nobody could be let in at all. */
const HANDSHAKES_MIN = 32;

/**
 * The limits, lowered to what the process may open: visitors hold two descriptors each, and when there are none left
 * nobody's connection can be taken, neither a client's nor the operator's.
 */
export function withinDescriptors(limits: Limits, logger: Logger, descriptors = descriptorLimit()): Limits {
  if (descriptors === undefined) return limits;
  const maxHandshakes = Math.min(limits.maxHandshakes, Math.max(HANDSHAKES_MIN, Math.floor(descriptors / 8)));
  // the peer port has handshakes of its own
  const handshakes = limits.maxForwarded > 0 ? 2 * maxHandshakes : maxHandshakes;
  // control connections and public ports, two for each tunnel
  const reserved = handshakes + Math.max(RESERVED_MIN, Math.floor(descriptors / 16));
  // visitors and what is passed on to other servers, two for each
  const pairs = Math.floor((descriptors - reserved) / 2);
  const maxForwarded = Math.min(limits.maxForwarded, Math.floor(pairs / 3));
  const maxConnections = Math.min(limits.maxConnections, pairs - maxForwarded);
  if (maxConnections < limits.maxConnections) {
    logger.warn(
      { descriptors, maxConnections, wanted: limits.maxConnections },
      'the descriptor limit (ulimit -n) allows fewer visitors than are configured',
    );
  }
  return { ...limits, maxConnections, maxForwarded, maxHandshakes };
}

/** How many descriptors this process may have; `undefined` where the system does not say. */
function descriptorLimit(): number | undefined {
  try {
    const soft = /^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
    return soft === undefined ? undefined : Number(soft);
  } catch {
    return undefined; // no Linux
  }
}
