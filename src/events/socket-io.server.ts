import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';

import proxyAddr from '@fastify/proxy-addr';
import { type BeforeApplicationShutdown, Inject, Injectable, type OnApplicationBootstrap } from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import type { FastifyAdapter } from '@nestjs/platform-fastify';
import type { Logger } from 'pino';
import { Server, type Socket } from 'socket.io';

import { CONFIG, type Config } from '../platform/config/config.js';
import { isDatabaseUnavailable } from '../platform/database/database.js';
import { ERROR_REGISTER, type ErrorCode, PlatformError } from '../platform/errors/error-register.js';
import { Callers } from '../platform/http/callers.js';
import type { Caller } from '../platform/http/route-metadata.js';
import { LOGGER } from '../platform/logging/logger.js';
import { limitedAddressOf } from '../platform/rate-limits/client-address.js';
import { Counters } from '../platform/rate-limits/counters.js';
import { type EventFilter, SocketAuth } from './event.js';
import { EventStreams } from './event-streams.js';
import { EventsService } from './events.service.js';
import { SocketIoOutlet } from './socket-io-outlet.js';

/** Until a connection must have said whose it is; socket.io's own 45 s would let strangers hold many. */
const CONNECT_TIMEOUT_MS = 5_000;
/** A client that is gone is noticed within both: proxies close what is silent later than that. */
const PING_INTERVAL_MS = 10_000;
const PING_TIMEOUT_MS = 10_000;
/** Clients say who they are, and nothing else. */
const MESSAGE_BYTES_MAX = 16 * 1024;
/** The first says who it is, the last that it goes; each one more is answered, and a client need not read the answers. */
const MESSAGES_MAX = 4;
/**
 * What a WebSocket may bring: its first words, and from then on what keeps it alive (7 bytes in ten seconds; some libraries ask for
 * signs of life themselves). Whatever it is, it has to be looked at, and much of it be answered.
 */
const SOCKET_BYTES_MAX = MESSAGE_BYTES_MAX + 4 * 1024;
const SOCKET_BYTES_PER_MS = 0.064;
const MINUTE_SECONDS = 60;
/** At shutdown, for last words to go out; longer than an outlet gives them. */
const CLOSE_MS = 600;

/** What carries a client, whether it has said who it is or not. */
type Connection = Socket['conn'];

/** What the handshake found out, for the stream that begins with the connection. */
interface Admitted {
  readonly caller: Caller;
  readonly filter: EventFilter;
  readonly lastEventId: string | undefined;
}

/**
 * The same streams as `GET events`, over socket.io at `/socket.io/`. There are no rooms and no adapter: each backend reads the outbox
 * for its own clients, so none has anything to send to another's, and a client is subscribed to what its handshake says.
 */
@Injectable()
export class SocketIoServer implements OnApplicationBootstrap, BeforeApplicationShutdown {
  private io: Server | undefined;
  private closing = false;
  /** Connections that have become WebSockets: HTTP does not end them any more. By the polling session that they continue, if any. */
  private readonly webSockets = new Map<Duplex, string | null>();
  private readonly admitted = new WeakMap<Socket, Admitted>();
  /** Connections that have tried: one handshake each, or one connection could ask the database without end. */
  private readonly tried = new WeakSet<Connection>();
  private readonly trusted;

  constructor(
    @Inject(CONFIG) private readonly config: Config,
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly adapterHost: HttpAdapterHost<FastifyAdapter>,
    private readonly callers: Callers,
    private readonly counters: Counters,
    private readonly events: EventsService,
    private readonly streams: EventStreams,
  ) {
    const { TRUST_PROXY } = config;
    this.trusted = TRUST_PROXY.length > 0 ? proxyAddr.compile([...TRUST_PROXY]) : () => false;
  }

  onApplicationBootstrap(): void {
    const { server } = this.adapterHost.httpAdapter.getInstance();
    server.on('upgrade', (request: IncomingMessage, socket: Duplex) => this.keepTrack(request, socket));
    const { ALLOWED_ORIGINS } = this.config;
    this.io = new Server(server, {
      serveClient: false,
      connectTimeout: CONNECT_TIMEOUT_MS,
      pingInterval: PING_INTERVAL_MS,
      pingTimeout: PING_TIMEOUT_MS,
      maxHttpBufferSize: MESSAGE_BYTES_MAX,
      httpCompression: false,
      ...(ALLOWED_ORIGINS.length > 0 && { cors: { origin: [...ALLOWED_ORIGINS] } }),
      allowRequest: (request, answer) => void this.admits(request).then((refusal) => answer(refusal, refusal === null)),
    });
    this.io.use((socket, settle) => void this.admit(socket).then(settle));
    this.io.on('connection', (socket) => void this.begin(socket));
    this.io.engine.on('connection', (conn: Connection) => this.countMessages(conn));
  }

  /** Streams are ended by then; what is left does not hold up the server, which waits for every connection. */
  async beforeApplicationShutdown(): Promise<void> {
    this.closing = true;
    const { io } = this;
    if (!io || io.engine.clientsCount === 0) return;
    await delay(CLOSE_MS);
    io.engine.close();
    for (const socket of this.webSockets.keys()) socket.destroy();
  }

  private keepTrack(request: IncomingMessage, socket: Duplex): void {
    const sid = new URLSearchParams(request.url?.split('?')[1]).get('sid');
    this.webSockets.set(socket, sid);
    socket.once('close', () => this.webSockets.delete(socket));
    const began = performance.now();
    let bytes = 0;
    // it flows from now on: what a client sends before it is answered is lost, and none may
    socket.on('data', ({ length }: Buffer) => {
      bytes += length;
      if (bytes - (performance.now() - began) * SOCKET_BYTES_PER_MS > SOCKET_BYTES_MAX) socket.destroy();
    });
  }

  private countMessages(conn: Connection): void {
    let messages = 0;
    conn.on('data', () => {
      messages += 1;
      if (messages > MESSAGES_MAX) this.cut(conn);
    });
  }

  /** Whether a new connection is let in, before it says whose it is; the reason when it is not. Never rejects. */
  private async admits(request: IncomingMessage): Promise<string | null> {
    const { EVENT_STREAMS_MAX, RATE_LIMIT_PER_MINUTE } = this.config;
    if (this.closing || (this.io?.engine.clientsCount ?? 0) >= EVENT_STREAMS_MAX) return 'UNAVAILABLE';
    const key = `socket:${limitedAddressOf(proxyAddr(request, this.trusted))}`;
    const { granted } = await this.counters.take([{ key, quota: RATE_LIMIT_PER_MINUTE, seconds: MINUTE_SECONDS }]);
    return granted ? null : 'TOO_MANY_REQUESTS';
  }

  /** Finds out whose a connection is; what the client hears when it is refused. Never rejects. */
  private async admit(socket: Socket): Promise<Error | undefined> {
    try {
      if (this.tried.has(socket.conn)) throw new PlatformError('TOO_MANY_REQUESTS');
      this.tried.add(socket.conn);
      const auth = SocketAuth.safeParse(socket.handshake.auth);
      if (!auth.success) throw new PlatformError('VALIDATION_FAILED');
      const { token, lastEventId, tunnelId, types = [] } = auth.data;
      const caller = await this.callers.identify(token, 'tunnels:read');
      if (tunnelId !== undefined) await this.events.mustOwn(caller, tunnelId);
      this.streams.check(caller.userId);
      const tunnelIds = new Set(tunnelId === undefined ? [] : [tunnelId]);
      const filter = { userId: caller.userId, tunnelIds, types: new Set(types) };
      this.admitted.set(socket, { caller, filter, lastEventId });
      return undefined;
    } catch (error) {
      const code = this.codeOf(error);
      // a client that is refused does not try again by itself; one whose connection breaks does
      if (code === 'UNAVAILABLE') socket.conn.close();
      return Object.assign(new Error(code), { data: { code, title: ERROR_REGISTER[code].title } });
    }
  }

  private async begin(socket: Socket): Promise<void> {
    const admitted = this.admitted.get(socket);
    // clients have nothing to say: who does is no client of ours
    socket.onAny(() => this.cut(socket.conn));
    try {
      if (!admitted) throw new Error('a connection without a handshake');
      const { caller, filter, lastEventId } = admitted;
      const cut = () => this.cut(socket.conn);
      await this.streams.begin(caller, filter, lastEventId, (start) => new SocketIoOutlet(socket, cut, start));
    } catch (error) {
      // another has come in between, or the database has gone
      socket.emit('end', { code: this.codeOf(error) });
      socket.conn.close();
    }
  }

  /** Ends a connection at once, whatever it still had to take. */
  private cut(conn: Connection): void {
    const { sid, name } = conn.transport;
    for (const [socket, continued] of this.webSockets) {
      if (socket === conn.request.socket || continued === sid) socket.destroy();
    }
    this.logger.debug({ transport: name }, 'socket.io connection cut');
    // from now on it looks at nothing more of what has already arrived
    conn.close(true);
  }

  private codeOf(error: unknown): ErrorCode {
    if (error instanceof PlatformError) return error.code;
    if (isDatabaseUnavailable(error)) return 'UNAVAILABLE';
    this.logger.error({ err: error }, 'socket.io connection failed');
    return 'INTERNAL_ERROR';
  }
}
