import type { Socket } from 'node:net';

import { encodeServerMessage } from '../protocol/messages.js';
import type { Grant, SessionEndReason, SessionRef } from '../protocol/plane-api.js';
import type { Authority } from './fences.js';
import { CONTROL_BACKLOG_BYTES_MAX, FAREWELL_MS } from './limits.js';

/** One client carrying one tunnel: its control connection. */
export class TunnelSession {
  readonly ref: SessionRef;
  readonly keyVersion: number;
  readonly begunAt = performance.now();
  private begun = false;
  private ended = false;

  /** @param onEnd called once, with the reason */
  constructor(
    { tunnelId, sessionId, epoch, keyVersion }: Grant,
    private readonly control: Socket,
    private readonly onEnd: (reason: SessionEndReason) => void,
  ) {
    this.ref = { tunnelId, sessionId, epoch };
    this.keyVersion = keyVersion;
    control.once('end', () => this.end('client_closed'));
    control.once('error', (error: NodeJS.ErrnoException) => {
      // no answer to keepalive: the client's machine is gone, and with it every stream through it
      this.end(error.code === 'ETIMEDOUT' || error.code === 'EHOSTUNREACH' ? 'client_lost' : 'client_reset');
    });
    control.once('close', () => this.end('client_closed'));
  }

  get authority(): Authority {
    return { epoch: this.ref.epoch, keyVersion: this.keyVersion };
  }

  get isOver(): boolean {
    return this.ended;
  }

  /** Tells the client its public port. From here on it says nothing more; what it says all the same is not kept. */
  begin(port: number): void {
    this.begun = true;
    this.control.write(encodeServerMessage({ kind: 'hello', port }));
    this.control.resume();
  }

  /** Asks the client to fetch a visitor, once it has been told its port. */
  sendConnection(id: string): void {
    if (!this.begun || this.ended) return;
    this.control.write(encodeServerMessage({ kind: 'connection', id }));
    if (this.control.writableLength > CONTROL_BACKLOG_BYTES_MAX) this.end('client_lost');
  }

  /**
   * Ends the session, once.
   * @param text told to the client before its connection is closed
   */
  end(reason: SessionEndReason, text?: string): void {
    if (this.ended) return;
    this.ended = true;
    if (text !== undefined && this.control.writable) this.control.write(encodeServerMessage({ kind: 'error', text }));
    this.control.setTimeout(FAREWELL_MS, () => this.control.destroy());
    this.control.destroySoon();
    this.onEnd(reason);
  }
}
