import net, { type Socket } from 'node:net';

import { answerChallenge } from '../protocol/challenge.js';
import { FrameReader, NETWORK_TIMEOUT_MS } from '../protocol/frames.js';
import {
  type ClientMessage,
  encodeClientMessage,
  parseServerMessage,
  type ServerMessage,
} from '../protocol/messages.js';
import { KEEPALIVE_MS } from './limits.js';

/** Where a bore-server takes clients. */
export interface ServerAddress {
  readonly host: string;
  readonly controlPort: number;
}

/** The server does not do its part of the conversation. */
export class ServerError extends Error {
  override readonly name = 'ServerError';
}

/** The server says no, in its own words. */
export class ServerRefusal extends Error {
  override readonly name = 'ServerRefusal';
}

/**
 * A client's connection to a bore-server while it speaks in frames (src/protocol/messages.ts has the conversation). It
 * is read only while somebody waits for a message, so that at most one read is buffered, and what follows the last
 * frame can be handed on.
 */
export class ServerConnection {
  private readonly reader = new FrameReader();
  private waiting: { resolve: (message: ServerMessage) => void; reject: (error: Error) => void } | undefined;
  private ended: Error | undefined;

  private constructor(readonly socket: Socket) {
    socket.pause();
    socket.on('data', this.onData).on('end', this.onEnd).on('close', this.onEnd).on('error', this.onError);
  }

  /**
   * Connects, answers the server's challenge, and says what it is about in the same breath.
   * @throws Error when the network or the server fails; the socket is gone then
   */
  static async open(
    { host, controlPort }: ServerAddress,
    key: Buffer,
    wish: Extract<ClientMessage, { kind: 'hello' | 'accept' }>,
    signal: AbortSignal,
  ): Promise<ServerConnection> {
    const socket = net.connect({ host, port: controlPort, allowHalfOpen: true, noDelay: true });
    socket.setKeepAlive(true, KEEPALIVE_MS);
    // aborted: whoever waits for a message hears that the connection has ended
    const abort = (): void => void socket.destroy();
    signal.addEventListener('abort', abort);
    socket.once('close', () => signal.removeEventListener('abort', abort));
    if (signal.aborted) abort();
    const connection = new ServerConnection(socket);
    try {
      // two limits, as upstream has them: one to connect and be greeted, one more where the caller waits for an answer
      const greeting = await connection.next(2 * NETWORK_TIMEOUT_MS);
      if (greeting.kind === 'error') throw new ServerRefusal(greeting.text);
      if (greeting.kind !== 'challenge') throw new ServerError('the server does not ask who we are');
      connection.send({ kind: 'authenticate', tag: answerChallenge(key, greeting.challenge) });
      connection.send(wish);
      return connection;
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  /**
   * The next message. An `Error` message is thrown by nobody here: it may be the last of a conversation.
   * @throws Error when the connection ends, breaks, or `timeoutMs` have passed
   */
  async next(timeoutMs?: number): Promise<ServerMessage> {
    const timer =
      timeoutMs === undefined
        ? undefined
        : setTimeout(() => this.fail(new ServerError('the server does not answer')), timeoutMs);
    try {
      return await new Promise((resolve, reject) => {
        this.waiting = { resolve, reject };
        this.deliver();
      });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the framing: the socket, paused and without listeners, and the bytes behind the last frame. */
  detach(): { socket: Socket; first: Buffer } {
    const { socket } = this;
    socket.off('data', this.onData).off('end', this.onEnd).off('close', this.onEnd).off('error', this.onError);
    return { socket, first: this.reader.rest() };
  }

  private send(message: ClientMessage): void {
    this.socket.write(encodeClientMessage(message));
  }

  private deliver(): void {
    const { waiting } = this;
    if (!waiting) return;
    try {
      const frame = this.reader.next();
      if (frame !== undefined) waiting.resolve(parseServerMessage(frame));
      else if (this.ended) waiting.reject(this.ended);
      else return void this.socket.resume();
    } catch (error) {
      waiting.reject(error instanceof Error ? error : new ServerError(String(error)));
    }
    this.waiting = undefined;
  }

  private fail(error: Error): void {
    this.ended ??= error;
    this.deliver();
    this.socket.destroy();
  }

  private readonly onData = (chunk: Buffer): void => {
    this.socket.pause();
    this.reader.push(chunk);
    this.deliver();
  };

  private readonly onError = (error: Error): void => {
    this.ended ??= error;
    this.deliver();
  };

  private readonly onEnd = (): void => {
    this.ended ??= new ServerError('the server closed the connection');
    this.deliver();
  };
}
