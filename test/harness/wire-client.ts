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

/** Until the server has said what a test waits for; it never needs that long. */
const ANSWER_TIMEOUT_MS = 15_000;

/** Where a bore-server takes clients. */
export interface ControlAddress {
  readonly address: string;
  readonly controlPort: number;
}

/** One connection to a control port, driven frame by frame. */
export class WireClient {
  private readonly reader = new FrameReader();
  private end: 'open' | 'finished' | 'reset' = 'open';

  private constructor(readonly socket: Socket) {
    socket.on('data', (chunk: Buffer) => this.reader.push(chunk));
    socket.on('end', () => (this.end = 'finished'));
    socket.on('error', () => (this.end = 'reset'));
    // every `next` under way listens for itself
    socket.setMaxListeners(50);
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
    const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
    for (;;) {
      const frame = this.reader.next();
      if (frame !== undefined) return parseServerMessage(frame);
      if (this.end !== 'open') throw new Error(`connection ${this.end} without another message`);
      await Promise.race([
        once(this.socket, 'data', { signal }),
        once(this.socket, 'end', { signal }),
        once(this.socket, 'close', { signal }),
      ]);
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
    const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
    while (this.end === 'open')
      await Promise.race([
        once(this.socket, 'end', { signal }),
        once(this.socket, 'close', { signal }).catch(() => undefined),
      ]);
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
    const { client, answer } = await hello(server, secret, port);
    if (answer.kind !== 'hello') throw new Error(`the server answered ${JSON.stringify(answer)}`);
    const run = async (): Promise<string> => {
      for (;;) {
        const message = await client.next();
        if (message.kind === 'error') return message.text;
        if (message.kind === 'connection') onStream(await accept(server, secret, message.id));
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
