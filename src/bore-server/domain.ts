import type { Logger } from 'pino';

import { portOfConnectionId } from '../protocol/connection-id.js';
import { PeerKey } from '../protocol/peer-link.js';
import { TunnelElsewhere } from './authorizer.js';
import type { FrameConnection } from './frame-connection.js';
import { Forwarder } from './forwarder.js';
import { type Greeting, Refusal } from './handshake.js';
import type { KnownPeers } from './known-peers.js';
import type { Limits } from './limits.js';
import type { Metrics } from './metrics.js';
import { PeerListener } from './peer-listener.js';

/** What becomes of a client whose greeting was heard, from which address. @throws Refusal, ConnectionEnded */
type Serve = (greeting: Greeting, address: string, connection: FrameConnection) => Promise<void>;

/** What a server that shares its public name brings along. */
export interface DomainContext {
  /** The internal keys: the first proves, all are accepted. */
  readonly apiKeys: readonly string[];
  readonly peers: KnownPeers;
  readonly limits: Limits;
  readonly metrics: Metrics;
  readonly logger: Logger;
  /** Whether a public port is of this server. */
  readonly isOurs: (port: number) => boolean;
  /** Serves a client of this server; one that named no port may turn out to be another's ({@link TunnelElsewhere}). */
  readonly serve: Serve;
  /** Serves a client that another server has handed over, with the same limits as one that came by itself. */
  readonly takeOver: Serve;
}

/** One public name for many servers: whoever gets a client's connection sees to it that the owner of its tunnel has it. */
export class Domain {
  private readonly forwarder: Forwarder;
  private readonly listener: PeerListener;

  constructor(private readonly context: DomainContext) {
    const { apiKeys, peers, limits, metrics, logger, takeOver } = context;
    const keys = apiKeys.map((apiKey) => new PeerKey(apiKey));
    const [key] = keys;
    if (!key) throw new Error('without a key everybody would be a peer');
    metrics.observePeers(() => peers.count);
    this.forwarder = new Forwarder({ key, limits, metrics, logger });
    this.listener = new PeerListener({ keys, limits, metrics, logger, onHandOver: takeOver });
  }

  /** Opens the peer port; resolves with it. */
  listen(port: number, address: string): Promise<number> {
    return this.listener.listen(port, address);
  }

  /** A client has come to our control port. @throws Refusal, ConnectionEnded */
  readonly onGreeting: Serve = async (greeting, address, connection) => {
    const { message } = greeting;
    const port = message.kind === 'accept' ? portOfConnectionId(message.id) : message.port;
    const { peers, isOurs, serve } = this.context;
    const owner = port === 0 || isOurs(port) ? undefined : peers.ownerOf(port);
    if (owner) return this.forwarder.forward(greeting, address, connection, owner);
    try {
      return await serve(greeting, address, connection);
    } catch (error) {
      if (!(error instanceof TunnelElsewhere)) throw error;
      const found = peers.ownerOf(error.port);
      if (!found) throw new Refusal('the server of this tunnel is not known here yet, try again', { cause: error });
      const named: Greeting = { ...greeting, message: { kind: 'hello', port: error.port } };
      return this.forwarder.forward(named, address, connection, found);
    }
  };

  /** Takes no more clients of others, and waits until their visitors have left, or for `graceMs`. */
  drain(graceMs: number): Promise<void> {
    return this.forwarder.drain(graceMs);
  }

  /** Ends everything. */
  stop(): void {
    this.listener.close();
    this.forwarder.stop();
  }
}
