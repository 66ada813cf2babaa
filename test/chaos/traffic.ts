import { once } from 'node:events';
import net, { type Socket } from 'node:net';

import { isText, textAt } from '../harness/known-text.js';
import { until } from '../harness/until.js';
import { Outage } from './outage.js';

/** A visitor says so much at once, and again when all of it has come back. */
const PIECE = 16 * 1024;
/** Between two pieces: a steady trickle, which shows a break at once. */
const PAUSE_MS = 50;
/** Without an echo for so long, a stream counts as broken. */
const SILENCE_MS = 10_000;
/** The first echo, when a whole cluster has just started on the same machine. */
const FIRST_MS = 30_000;
/** Until a visitor who was cut off comes again. */
const RETURN_MS = 200;
/** The end of a stream: what is under way comes back within this. */
const END_MS = 10_000;

/** What was carried since the last look. */
export interface TrafficReport {
  /** Streams that ended otherwise than by their visitor's will, or carried a wrong byte. */
  readonly broken: number;
  /** Bytes that came back other than they were sent. */
  readonly wrong: number;
  /** The longest time in which a visitor who wanted to could not be carried. */
  readonly outageMs: number;
}

/** Repeats what it hears: the local service of every tunnel. */
export class EchoService {
  private readonly sockets = new Set<Socket>();
  private readonly server = net.createServer({ allowHalfOpen: true }, (socket) => {
    this.sockets.add(socket);
    socket.on('close', () => this.sockets.delete(socket)).on('error', () => undefined);
    socket.pipe(socket);
  });

  /** Resolves with its port. */
  async start(): Promise<number> {
    this.server.listen(0, '127.0.0.1');
    await once(this.server, 'listening');
    const address = this.server.address();
    if (address === null || typeof address === 'string') throw new Error('the echo service has no port');
    return address.port;
  }

  stop(): void {
    this.server.close();
    for (const socket of this.sockets) socket.destroy();
  }
}

/** One visitor of one tunnel, who sends known text all the time, checks what comes back, and returns when cut off. */
export class EndlessVisitor {
  private readonly outage = new Outage();
  private broken = 0;
  private wrong = 0;
  private sent = 0;
  private returned = 0;
  private isLeaving = false;
  private everBroken = false;
  private heardAt = performance.now();
  private running: Promise<void> = Promise.resolve();

  /** @param address where the public port is now */
  constructor(readonly address: { readonly host: string; readonly port: number }) {}

  /** Resolves when the first piece has come back. */
  async start(): Promise<void> {
    this.isLeaving = false;
    const before = this.returned;
    this.running = this.run();
    await until(() => this.returned > before, `a visitor is carried at ${this.address.port}`, FIRST_MS);
  }

  /** Whether it is carried. */
  get isCarried(): boolean {
    return this.outage.isOver;
  }

  /** Bytes each way, exact when no stream of it was ever broken: then what was sent has come back. */
  get bytes(): { readonly exact: boolean; readonly count: number } {
    return { exact: !this.everBroken && this.sent === this.returned, count: this.sent };
  }

  take(): TrafficReport {
    const { broken, wrong } = this;
    this.broken = this.wrong = 0;
    return { broken, wrong, outageMs: this.outage.take() };
  }

  /** Finishes as a polite visitor does: sends no more, and hears what is under way. */
  async stop(): Promise<void> {
    this.isLeaving = true;
    await this.running;
  }

  private async run(): Promise<void> {
    while (!this.isLeaving) {
      if (await this.visit()) return;
      this.outage.failed(this.heardAt);
      await new Promise((resolve) => setTimeout(resolve, RETURN_MS));
    }
  }

  /** One stream; resolves with whether it ended well. */
  private async visit(): Promise<boolean> {
    const socket = net.connect({ host: this.address.host, port: this.address.port, allowHalfOpen: true });
    socket.on('error', () => undefined);
    socket.setTimeout(this.returned === 0 ? FIRST_MS : SILENCE_MS).on('timeout', () => socket.destroy());
    let sent = 0;
    let heard = 0;
    let isBegun = false;
    const say = () => {
      if (this.isLeaving) {
        socket.setTimeout(END_MS);
        socket.end();
        return;
      }
      const piece = textAt(sent, PIECE);
      sent += piece.length;
      this.sent += piece.length;
      socket.write(piece);
    };
    socket.on('data', (chunk: Buffer) => {
      if (!isText(chunk, heard)) this.wrong += chunk.length;
      this.heardAt = performance.now();
      if (!isBegun) this.outage.worked(this.heardAt);
      if (!isBegun && !this.isLeaving) socket.setTimeout(SILENCE_MS);
      isBegun = true;
      heard += chunk.length;
      this.returned += chunk.length;
      if (heard === sent) setTimeout(say, PAUSE_MS);
    });
    let finished = false;
    socket.on('end', () => {
      finished = true;
      socket.end();
    });
    socket.on('connect', say);
    await new Promise((resolve) => socket.once('close', resolve));
    const isWhole = finished && this.isLeaving && heard === sent;
    // one that nobody has answered yet is not broken, but it may have carried something
    if (isBegun && !isWhole) this.broken++;
    if (sent > 0 && !isWhole) this.everBroken = true;
    return isWhole;
  }
}
