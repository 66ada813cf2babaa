import type { Logger } from 'pino';

import type { PeerDirectory } from '../protocol/peers.js';
import type {
  HeartbeatRequest,
  HeartbeatResponse,
  RegisterRequest,
  SessionEndReason,
  SessionRef,
} from '../protocol/plane-api.js';
import type { Report } from '../protocol/reports.js';
import { type BackendClient, PlaneRefusal } from './backend-client.js';

/** A backend that needs longer is as good as gone; several of these fit into a lease. */
const CALL_TIMEOUT_MS = 4_000;
/** The last heartbeat before the process ends: an operator waits for it. */
const LAST_CALL_TIMEOUT_MS = 2_000;
/** Pause between two attempts: doubled from the first to the second of these, and spread, so that servers do not return all at once. */
const RETRY_MS_MIN = 200;
const RETRY_MS_MAX = 5_000;
/** A session's end is reported at once, but several at a time: one heartbeat for all that end within this. */
const NUDGE_MS = 50;

type Ended = SessionRef & { reason: SessionEndReason };

/** What the reporter asks of the server, and what it does for it. */
export interface Reported {
  /** What it carries and keeps, and its load since the last call. */
  heartbeat(): Pick<HeartbeatRequest, 'sessions' | 'kept' | 'load'>;
  /** What is not in the books yet; the same until it is {@link acknowledged}. Resolves when it may be sent. */
  report(): Promise<Report | undefined>;
  /** Nothing could be reported now: what is not in the books is to be kept. */
  notReported(): void;
  /** A report is in the books. */
  acknowledged(sequence: number): void;
  /** The answer to a heartbeat that said `sessions`. */
  obey(orders: HeartbeatResponse, sessions: HeartbeatRequest['sessions']): void;
  /** The version of the directory of peers that the server works with; `undefined`: it has no peer port. */
  peersVersion(): string | undefined;
  onPeers(directory: PeerDirectory): void;
  /** Another process has this server id now. */
  superseded(): void;
}

/** Keeps the control plane informed: registers, then heartbeats until it is stopped. */
export class Reporter {
  private registered = false;
  private intervalMs = RETRY_MS_MIN;
  private sequence = 0;
  private stopping = false;
  private draining = false;
  private failing = false;
  /** Of a registration or heartbeat, as `performance.now()` counts. */
  private answeredAt = performance.now();
  private sessionsMax: number | undefined;
  /** Something is to be said before the next heartbeat is due. */
  private nudged = false;
  private shortenPause: (toMs: number) => void = () => undefined;
  /** Ends that no heartbeat was answered for yet: the newest for each tunnel, so as many as there are tunnels at most. */
  private readonly ended = new Map<string, Ended>();
  private running: Promise<void> | undefined;

  constructor(
    private readonly backend: BackendClient,
    private readonly registration: RegisterRequest,
    private readonly reported: Reported,
    private readonly logger: Logger,
  ) {}

  /** Whether the control plane knows this process. */
  get isRegistered(): boolean {
    return this.registered;
  }

  /** Whether the control plane answered what it was told last, and how long ago it last answered anything. */
  get contact(): { readonly up: boolean; readonly answerAgeSeconds: number } {
    return {
      up: this.registered && !this.failing,
      answerAgeSeconds: (performance.now() - this.answeredAt) / 1000,
    };
  }

  /** How many tunnels the server may carry, as the control plane said when it registered. */
  get maxSessions(): number | undefined {
    return this.sessionsMax;
  }

  /** Whether the server has said that it wants no new tunnels. */
  get isDraining(): boolean {
    return this.draining;
  }

  start(): void {
    this.running = this.run();
  }

  /** A session has ended: reported with the next heartbeat, which comes soon. */
  sessionEnded(ref: Ended): void {
    const known = this.ended.get(ref.tunnelId);
    if (!known || known.epoch <= ref.epoch) this.ended.set(ref.tunnelId, ref);
    this.nudge();
  }

  /** The control plane does not know us (any more): register again, now. */
  registerAgain(): void {
    this.registered = false;
    this.nudge();
  }

  /** Whether the server wants no new tunnels; said at once. */
  setDraining(draining: boolean): void {
    this.draining = draining;
    this.nudge();
  }

  /** There is more to say than should wait for the next heartbeat. */
  nudge(): void {
    if (this.nudged) return;
    this.nudged = true;
    // a backend that failed is not asked sooner because of it
    if (!this.failing) this.shortenPause(NUDGE_MS);
  }

  /** Says a last time what is, so that no new tunnel is placed here, and stops. */
  async stop(): Promise<void> {
    this.stopping = true;
    this.shortenPause(0);
    await this.running;
    if (!this.registered) return;
    this.draining = true;
    try {
      await this.heartbeat(LAST_CALL_TIMEOUT_MS);
    } catch (err) {
      this.logger.warn({ err }, 'the control plane could not be told that this server stops');
    }
  }

  private async run(): Promise<void> {
    let failures = 0;
    while (!this.stopping) {
      let pauseMs: number;
      try {
        const isKnown = this.registered;
        if (isKnown) await this.heartbeat(CALL_TIMEOUT_MS);
        else await this.register();
        failures = 0;
        this.answeredAt = performance.now();
        // what it carries is said at once: a database that was restored knows of older sessions, and until it hears of these a client that
        // comes back would look older than the one it takes over from
        pauseMs = isKnown ? this.intervalMs : 0;
      } catch (err) {
        if (err instanceof PlaneRefusal) this.onRefusal(err);
        else this.logger[failures === 0 ? 'warn' : 'debug']({ err, failures }, 'the control plane does not answer');
        pauseMs = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** failures++) * (0.5 + Math.random() / 2);
      }
      this.failing = failures > 0;
      if (this.failing) this.reported.notReported();
      await this.pause(pauseMs);
    }
  }

  private async pause(ms: number): Promise<void> {
    if (this.stopping) return;
    await new Promise<void>((resolve) => {
      let timer = setTimeout(resolve, this.nudged && !this.failing ? NUDGE_MS : ms);
      this.shortenPause = (toMs) => {
        clearTimeout(timer);
        timer = setTimeout(resolve, toMs);
      };
    });
    this.shortenPause = () => undefined;
    this.nudged = false;
  }

  private async register(): Promise<void> {
    const { heartbeatIntervalMs, maxTunnels, peers } = await this.backend.register(this.registration, CALL_TIMEOUT_MS);
    if (peers) this.reported.onPeers(peers);
    this.intervalMs = heartbeatIntervalMs;
    this.registered = true;
    this.sessionsMax = maxTunnels;
    this.logger.info({ serverId: this.registration.serverId, maxTunnels }, 'registered');
  }

  private async heartbeat(timeoutMs: number): Promise<void> {
    const report = await this.reported.report();
    const ended = [...this.ended.values()];
    const beat = this.reported.heartbeat();
    const peersVersion = this.reported.peersVersion();
    const orders = await this.backend.heartbeat(
      this.registration.serverId,
      {
        instanceId: this.registration.instanceId,
        sequence: ++this.sequence,
        draining: this.draining,
        ...beat,
        ended,
        ...(report && { report }),
        ...(peersVersion !== undefined && { peersVersion }),
      },
      timeoutMs,
    );
    for (const ref of ended) if (this.ended.get(ref.tunnelId) === ref) this.ended.delete(ref.tunnelId);
    if (orders.reported !== null) this.reported.acknowledged(orders.reported);
    if (orders.peers) this.reported.onPeers(orders.peers);
    this.reported.obey(orders, beat.sessions);
  }

  private onRefusal({ code }: PlaneRefusal): void {
    if (code === 'SERVER_SUPERSEDED') this.reported.superseded();
    else if (code === 'SERVER_UNKNOWN') this.registered = false;
    else if (code === 'PORT_RANGE_TAKEN')
      this.logger.error(
        'the control plane refused this server: another of the same public name has ports of its range',
      );
    else this.logger.error({ code }, 'the control plane refused a report');
  }
}
