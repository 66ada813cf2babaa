import net, { type Socket } from 'node:net';

import { Refusal } from './handshake.js';
import { openPort } from './open-port.js';

/** A public port while some session holds it. The holder may change without the port being closed (takeover). */
export class PublicPort {
  /** Who gets the visitors. */
  onVisitor: (socket: Socket) => void = (socket) => void socket.destroy();
  private readonly server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) =>
    this.onVisitor(socket),
  );
  private listening: Promise<void> | undefined;

  constructor(
    private readonly address: string,
    readonly port: number,
  ) {
    // EMFILE and the like on accept: the visitor is lost, and nothing else suffers
    this.server.on('error', () => undefined);
  }

  /** Begins to listen; again: waits for the first call. @throws Refusal in upstream's words */
  listen(): Promise<void> {
    this.listening ??= this.open();
    return this.listening;
  }

  /** Takes no more visitors. */
  close(): void {
    this.server.close();
  }

  private async open(): Promise<void> {
    try {
      await openPort(this.server, this.port, this.address);
    } catch (cause) {
      const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
      const text =
        code === 'EADDRINUSE'
          ? 'port already in use'
          : code === 'EACCES'
            ? 'permission denied'
            : 'failed to bind to port';
      throw new Refusal(text, { cause });
    }
  }
}
