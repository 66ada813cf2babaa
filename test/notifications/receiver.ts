import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import type { Socket } from 'node:net';

/** How a receiver answers: with a status, never, or by breaking off; a URL: by sending the caller there. */
export type Behaviour = number | 'hangs' | 'resets' | `http://${string}`;

/** A POST that has arrived. */
export interface Arrived {
  readonly path: string;
  readonly headers: http.IncomingHttpHeaders;
  readonly text: string;
  // JSON of any shape: the assertion that reads it is what checks it
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly body: any;
}

/** Whom notifications are sent to, on a real socket. */
export class Receiver {
  /** In the order of their arrival. */
  readonly arrived: Arrived[] = [];
  /** Of the next requests, one each; when there are none left, {@link usual}. */
  behaviours: Behaviour[] = [];
  usual: Behaviour = 200;
  /** Requests that are being answered now, and the most that there were. */
  private open = 0;
  openMax = 0;
  private readonly held = new Set<Socket>();
  private readonly server = http.createServer((request, response) => void this.onRequest(request, response));

  static async start(host = '127.0.0.1'): Promise<Receiver> {
    const receiver = new Receiver();
    await once(receiver.server.listen(0, host), 'listening');
    return receiver;
  }

  get port(): number {
    const address = this.server.address();
    return typeof address === 'object' && address ? address.port : 0;
  }

  /** Where it is, with something in it that must not be seen. */
  url(path: string): string {
    return `http://127.0.0.1:${this.port}${path}`;
  }

  /** What has arrived for a kind, by its state. */
  states(kind: string): string[] {
    return this.arrived.filter(({ body }) => body.kind === kind).map(({ body }) => body.state);
  }

  /** What has arrived is known by, sorted. */
  ids(): string[] {
    return this.arrived.map(({ headers }) => String(headers['webhook-id'])).toSorted();
  }

  forget(): void {
    this.arrived.length = 0;
  }

  async stop(): Promise<void> {
    for (const socket of this.held) socket.destroy();
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, 'close');
  }

  private async onRequest(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    this.open++;
    this.openMax = Math.max(this.openMax, this.open);
    response.once('close', () => this.open--);
    request.setEncoding('utf8');
    let text = '';
    for await (const chunk of request) text += chunk;
    this.arrived.push({ path: request.url ?? '', headers: request.headers, text, body: JSON.parse(text) });
    const behaviour = this.behaviours.shift() ?? this.usual;
    if (behaviour === 'hangs') return void this.held.add(request.socket);
    if (behaviour === 'resets') return void request.socket.resetAndDestroy();
    if (typeof behaviour === 'string') return void response.writeHead(307, { location: behaviour }).end();
    response.writeHead(behaviour).end('thank you');
  }
}

/** The signature of a webhook by the formula of standardwebhooks.com, made without the library that the backend uses. */
export function signatureOf(key: Buffer, { headers, text }: Arrived): string {
  const signed = `${String(headers['webhook-id'])}.${String(headers['webhook-timestamp'])}.${text}`;
  return `v1,${createHmac('sha256', key).update(signed).digest('base64')}`;
}
