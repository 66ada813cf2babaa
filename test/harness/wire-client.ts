import { once } from 'node:events';
import net, { type Socket } from 'node:net';

import { answerChallenge, keyOfSecret } from '../../src/protocol/challenge.js';
import { FrameReader } from '../../src/protocol/frames.js';
import {
  type ClientMessage,
  encodeClientMessage,
  parseServerMessage,
  type ServerMessage,
} from '../../src/protocol/messages.js';

/** Where a bore-server takes clients. */
export interface ControlAddress {
  readonly address: string;
  readonly controlPort: number;
}

/** One connection to a control port, driven frame by frame. */
export class WireClient {
  private readonly reader = new FrameReader();
  private end: 'open' | 'finished' | 'reset' = 'open';
  /** Called when something has happened. */
  private readonly waiting = new Set<() => void>();

  private constructor(readonly socket: Socket) {
    socket.on('data', (chunk: Buffer) => {
      this.reader.push(chunk);
      this.wake();
    });
    socket.on('end', () => this.finish('finished'));
    socket.on('error', () => this.finish('reset'));
    socket.on('close', () => this.finish('reset'));
  }

  /** @param from source address, when it matters */
  static async connect({ address, controlPort }: ControlAddress, from = '127.0.0.1'): Promise<WireClient> {
    const socket = net.connect({ host: address, port: controlPort, localAddress: from, allowHalfOpen: true });
    await once(socket, 'connect');
    return new WireClient(socket);
  }

  send(...messages: (ClientMessage | Buffer | string)[]): void {
    this.socket.write(
      Buffer.concat(
        messages.map((message) =>
          typeof message === 'string' || Buffer.isBuffer(message) ? Buffer.from(message) : encodeClientMessage(message),
        ),
      ),
    );
  }

  /** The server's next message. Fails when the connection ends first. */
  async next(): Promise<ServerMessage> {
    for (;;) {
      const frame = this.reader.next();
      if (frame !== undefined) return parseServerMessage(frame);
      if (this.end !== 'open') throw new Error(`connection ${this.end} without another message`);
      await this.something();
    }
  }

  /** Answers the challenge with `secret` and says `message` at once, as upstream's client does. */
  async greet(secret: string, message: ClientMessage): Promise<void> {
    const challenge = await this.next();
    if (challenge.kind !== 'challenge') throw new Error(`expected a challenge, got ${challenge.kind}`);
    const tag = answerChallenge(keyOfSecret(secret), challenge.challenge);
    this.send({ kind: 'authenticate', tag }, message);
  }

  /** Resolves when the server has ended the connection, with how. */
  async closed(): Promise<'finished' | 'reset'> {
    while (this.end === 'open') await this.something();
    return this.end;
  }

  /** Leaves frames behind: the socket, with what came after the last frame put back. */
  detach(): Socket {
    this.socket.removeAllListeners('data');
    this.socket.pause();
    const rest = this.reader.rest();
    if (rest.length > 0) this.socket.unshift(rest);
    return this.socket;
  }

  private finish(how: 'finished' | 'reset'): void {
    if (this.end === 'open') this.end = how;
    this.wake();
  }

  private wake(): void {
    for (const resolve of this.waiting) resolve();
    this.waiting.clear();
  }

  /** A carrying client waits for as long as its test runs; a test ends by its own time limit. */
  private something(): Promise<void> {
    return new Promise((resolve) => this.waiting.add(resolve));
  }
}

/** Says Hello(port) and returns the connection with the server's answer. */
export async function hello(
  server: ControlAddress,
  secret: string,
  port: number,
): Promise<{ client: WireClient; answer: ServerMessage }> {
  const client = await WireClient.connect(server);
  await client.greet(secret, { kind: 'hello', port });
  return { client, answer: await client.next() };
}

/** Fetches a visitor: the socket is its stream, from `behind` on. */
export async function accept(
  server: ControlAddress,
  secret: string,
  id: string,
  behind: Buffer | string = '',
): Promise<Socket> {
  const client = await WireClient.connect(server);
  await client.greet(secret, { kind: 'accept', id });
  if (behind.length > 0) client.send(behind);
  return client.detach();
}

/** What a bore-server says that has waited for its backend as long as a client waits for it. */
const TRY_AGAIN = 'the service cannot authorise new tunnels right now, try again';

/** A client that carries a tunnel: calls `onStream` with the stream of each visitor. */
export class CarryingClient {
  private constructor(
    readonly control: WireClient,
    readonly port: number,
    /** Resolves with the server's last word, or how it closed. */
    readonly over: Promise<string>,
  ) {}

  static async start(
    server: ControlAddress,
    secret: string,
    port: number,
    onStream: (stream: Socket) => void,
  ): Promise<CarryingClient> {
    let { client, answer } = await hello(server, secret, port);
    // the machine stood still for longer than a backend may take
    for (let i = 0; i < 2 && answer.kind === 'error' && answer.text === TRY_AGAIN; i++)
      ({ client, answer } = await hello(server, secret, port));
    if (answer.kind !== 'hello') throw new Error(`the server answered ${JSON.stringify(answer)}`);
    const run = async (): Promise<string> => {
      for (;;) {
        const message = await client.next();
        if (message.kind === 'error') return message.text;
        // all at once, as other clients do it; one that cannot be fetched has left meanwhile
        if (message.kind === 'connection') accept(server, secret, message.id).then(onStream, () => undefined);
      }
    };
    return new CarryingClient(
      client,
      answer.port,
      run().catch((error: unknown) => String(error)),
    );
  }

  stop(): void {
    this.control.socket.destroy();
  }
}
