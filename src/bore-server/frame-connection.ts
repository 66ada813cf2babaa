import type { Socket } from 'node:net';

import { FrameError, FrameReader, MAX_FRAME_BYTES } from '../protocol/frames.js';
import { encodeServerMessage, type ServerMessage } from '../protocol/messages.js';

/** The peer closed, or was closed, before a whole frame had come. */
export class ConnectionEnded extends Error {
  override readonly name = 'ConnectionEnded';
}

/**
 * A socket while it still speaks in frames. It is read only while somebody waits for a frame, so that at most one read
 * is buffered, and what follows the last frame can be handed on.
 */
export class FrameConnection {
  /** When it came to us, as `performance.now()` counts. */
  readonly openedAt = performance.now();
  private readonly reader: FrameReader;
  private waiting: { resolve: (frame: string) => void; reject: (error: Error) => void } | undefined;
  private ended: Error | undefined;

  constructor(
    readonly socket: Socket,
    frameBytesMax = MAX_FRAME_BYTES,
  ) {
    this.reader = new FrameReader(frameBytesMax);
    socket.pause();
    socket.on('data', this.onData).on('end', this.onEnd).on('close', this.onEnd);
  }

  /** @throws FrameError, ConnectionEnded */
  next(): Promise<string> {
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject };
      this.deliver();
    });
  }

  send(message: ServerMessage): void {
    if (this.socket.writable) this.socket.write(encodeServerMessage(message));
  }

  /** A frame that is none of bore's own. */
  sendFrame(text: string): void {
    if (this.socket.writable) this.socket.write(`${text}\0`);
  }

  /** Ends the framing: the socket, paused, and the bytes that came behind the last frame. */
  detach(): Buffer {
    this.socket.off('data', this.onData).off('end', this.onEnd).off('close', this.onEnd);
    return this.reader.rest();
  }

  private deliver(): void {
    const { waiting } = this;
    if (!waiting) return;
    try {
      const frame = this.reader.next();
      if (frame !== undefined) waiting.resolve(frame);
      else if (this.ended) waiting.reject(this.ended);
      else return void this.socket.resume();
    } catch (error) {
      waiting.reject(error instanceof FrameError ? error : new FrameError('frame cannot be read', { cause: error }));
    }
    this.waiting = undefined;
  }

  private readonly onData = (chunk: Buffer): void => {
    this.socket.pause();
    this.reader.push(chunk);
    this.deliver();
  };

  private readonly onEnd = (): void => {
    this.ended ??= new ConnectionEnded('connection ended');
    this.deliver();
  };
}
