/** The ways that a stream can take from a visitor to a local service: which server, which client. */
import { once } from 'node:events';
import net, { type Socket } from 'node:net';

import { Carrier } from '../../../src/cli/carrier.js';
import { Visitors } from '../../../src/cli/visitors.js';
import { keyOfSecret } from '../../../src/protocol/challenge.js';
import { RunningProcess } from '../../harness/running-process.js';
import { CarryingClient, type ControlAddress } from '../../harness/wire-client.js';

export const SECRET = 'tk_conformance';

/** Who carries: `bare`, where the client's connection is the service itself; borectl's code; upstream's client. */
export type ClientKind = 'bare' | 'borectl' | 'stock';

/** A tunnel with its client and its local service. */
export class StreamPath {
  private readonly arrived: Socket[] = [];
  private waiting: ((socket: Socket) => void) | undefined;
  private readonly service = net.createServer({ allowHalfOpen: true, pauseOnConnect: true }, (s) => this.arrive(s));
  private servicePort = 0;
  private refuses = false;
  private stopClient: () => Promise<void> | void = () => undefined;

  private constructor(
    private readonly server: ControlAddress,
    /** Visitors' way in; the client may take another one, through a proxy. */
    private readonly publicAddress: string,
    private readonly publicPort: number,
  ) {}

  static async start(
    kind: ClientKind,
    server: ControlAddress,
    publicAddress: string,
    publicPort: number,
    boreBinary = '',
  ): Promise<StreamPath> {
    const path = new StreamPath(server, publicAddress, publicPort);
    await path.listen();
    if (kind === 'bare') await path.startBare();
    else if (kind === 'borectl') await path.startBorectl();
    else await path.startStock(boreBinary);
    return path;
  }

  async visit(): Promise<Socket> {
    const socket = net
      .connect({ host: this.publicAddress, port: this.publicPort, allowHalfOpen: true, noDelay: true })
      .pause();
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    return socket;
  }

  /** The service's end of the visitor's stream, once it is there; `undefined` when none has come in time. */
  async serve(withinMs: number): Promise<Socket | undefined> {
    const [socket] = this.arrived.splice(0, 1);
    if (socket) return socket;
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.waiting = undefined;
        resolve(undefined);
      }, withinMs);
      this.waiting = (next) => {
        clearTimeout(timer);
        this.waiting = undefined;
        resolve(next);
      };
    });
  }

  /** Nothing listens on the local port any more. */
  async refuse(): Promise<void> {
    this.refuses = true;
    const closed = once(this.service, 'close');
    this.service.close();
    await closed;
  }

  async acceptAgain(): Promise<void> {
    this.refuses = false;
    await this.listen();
  }

  async stop(): Promise<void> {
    await this.stopClient();
    this.service.close();
    for (const socket of this.arrived) socket.destroy();
  }

  private arrive(socket: Socket): void {
    socket.on('error', () => undefined);
    if (this.waiting) this.waiting(socket);
    else this.arrived.push(socket);
  }

  private async listen(): Promise<void> {
    this.service.listen(this.servicePort, '127.0.0.1');
    await once(this.service, 'listening');
    const address = this.service.address();
    if (typeof address === 'object' && address !== null) this.servicePort = address.port;
  }

  private async startBare(): Promise<void> {
    const client = await CarryingClient.start(this.server, SECRET, this.publicPort, (stream) => {
      if (this.refuses) stream.destroy();
      else this.arrive(stream);
    });
    this.stopClient = () => client.stop();
  }

  private async startBorectl(): Promise<void> {
    const abort = new AbortController();
    const key = keyOfSecret(SECRET);
    const { publicPort: port, server } = this;
    const place = {
      host: server.address,
      controlPort: server.controlPort,
      port,
      publicAddress: `:${port}`,
      location: '',
    };
    const visitors = new Visitors({ host: '127.0.0.1', port: this.servicePort }, key, abort.signal);
    await new Promise<void>((connected) => {
      const carrier = new Carrier({
        place,
        key,
        visitors,
        status: () => Promise.resolve({ kind: 'unknown' }),
        onConnected: () => connected(),
        signal: abort.signal,
      });
      // ends with the signal
      void carrier.run();
    });
    this.stopClient = () => abort.abort();
  }

  private async startStock(boreBinary: string): Promise<void> {
    const client = new RunningProcess(
      boreBinary,
      ['local', String(this.servicePort), '--to', this.server.address, '--port', String(this.publicPort)],
      { PATH: process.env['PATH'], BORE_SECRET: SECRET },
    );
    this.stopClient = () => client.kill9();
    await client.waitFor('listening at');
  }
}
