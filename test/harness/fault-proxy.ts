import { once } from 'node:events';
import net, { type Socket } from 'node:net';

import { tellingEnds } from './exact-ends.js';
import { FaultLane } from './fault-lane.js';
import { HEALTHY, type Toxics } from './toxics.js';

/** Connections at once; a test that has more has lost count. */
const LINKS_MAX = 10_000;

/** Which way: from who connects to the target, back, or both. */
export type Direction = 'toTarget' | 'toClient' | 'both';

export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

/** One connection through the proxy: who connected, the target, and a lane each way. */
interface Link {
  readonly client: Socket;
  readonly target: Socket;
  readonly lanes: readonly FaultLane[];
}

/**
 * A TCP proxy that spoils connections, for tests: latency, bandwidth, slices, swallowed data, cuts and resets, each
 * switched on and off while connections run. Without toxics it is a faithful one: an end is passed on as an end and a
 * reset as a reset, and a side that is not read makes the other wait.
 */
export class FaultProxy {
  private readonly links = new Set<Link>();
  private readonly toxics: Record<'toTarget' | 'toClient', Toxics> = { toTarget: HEALTHY, toClient: HEALTHY };
  private server: net.Server | undefined;
  private gone = 0;

  private constructor(
    private readonly target: Endpoint,
    readonly host: string,
    public port: number,
  ) {}

  /** @param at default: any free port of 127.0.0.1 */
  static async start(target: Endpoint, { host, port }: Endpoint = { host: '127.0.0.1', port: 0 }): Promise<FaultProxy> {
    const proxy = new FaultProxy(target, host, port);
    await proxy.accept();
    return proxy;
  }

  /** Connections open now. */
  get connections(): number {
    return this.links.size;
  }

  /** Connections that have ended since the start. */
  get ended(): number {
    return this.gone;
  }

  /** Bytes that were taken and went nowhere, on the connections open now. */
  get swallowedBytes(): number {
    return [...this.links].flatMap(({ lanes }) => lanes).reduce((sum, lane) => sum + lane.swallowedBytes, 0);
  }

  /** Switches toxics on or off; those not named stay as they are. */
  set(toxics: Partial<Toxics>, direction: Direction = 'both'): void {
    if (direction !== 'toClient') this.toxics.toTarget = { ...this.toxics.toTarget, ...toxics };
    if (direction !== 'toTarget') this.toxics.toClient = { ...this.toxics.toClient, ...toxics };
    for (const lane of [...this.links].flatMap(({ lanes }) => lanes)) lane.wake();
  }

  /** Switches all toxics off. */
  heal(): void {
    this.set(HEALTHY);
  }

  /** Takes connections again, on the same port. */
  async accept(): Promise<void> {
    if (this.server) return;
    const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) =>
      this.join(socket),
    );
    this.server = server;
    server.listen(this.port, this.host);
    await once(server, 'listening');
    const address = server.address();
    if (typeof address === 'object' && address !== null) this.port = address.port;
  }

  /** Refuses new connections; those that run go on. */
  refuse(): void {
    this.server?.close();
    this.server = undefined;
  }

  /** Ends every connection towards both sides, as a proxy that is stopped does. */
  cut(): void {
    for (const { client, target } of this.links) for (const socket of [client, target]) socket.destroy();
  }

  /** Resets every connection towards both sides. */
  reset(): void {
    for (const { client, target } of this.links) for (const socket of [client, target]) socket.resetAndDestroy();
  }

  /** Refuses and cuts; {@link accept} brings it back. */
  down(): void {
    this.refuse();
    this.cut();
  }

  /** Down, for good. Resolves when nothing is left open. */
  async close(): Promise<void> {
    const closed = this.server && once(this.server, 'close');
    this.down();
    await closed;
  }

  private join(client: Socket): void {
    if (this.links.size >= LINKS_MAX) return void client.resetAndDestroy();
    const target = net.connect({ ...this.target, allowHalfOpen: true, noDelay: true }).pause();
    const over = (how: 'close' | 'reset'): void => {
      for (const socket of [client, target]) {
        if (how === 'close') socket.destroySoon();
        else socket.resetAndDestroy();
      }
    };
    for (const socket of [client, target]) tellingEnds(socket).on('error', () => undefined);
    const toTarget = new FaultLane(client, target, () => this.toxics.toTarget, over);
    const toClient = new FaultLane(target, client, () => this.toxics.toClient, over);
    const link: Link = { client, target, lanes: [toTarget, toClient] };
    this.links.add(link);
    let open = 2;
    const guard = (socket: Socket, other: Socket, lane: FaultLane, swallows: () => boolean): void => {
      socket.once('close', () => {
        if (--open === 0 && this.links.delete(link)) this.gone++;
        // broken, not finished; what it had finished saying is still passed on
        if (!lane.isEnded && !swallows()) other.resetAndDestroy();
      });
    };
    guard(client, target, toTarget, () => this.toxics.toTarget.swallow);
    guard(target, client, toClient, () => this.toxics.toClient.swallow);
    target.once('connect', () => {
      // both end with their sockets, and do not fail
      void toTarget.run();
      void toClient.run();
    });
  }
}
