import { EventEmitter } from 'node:events';

import { Inject, Injectable } from '@nestjs/common';
import type { Logger } from 'pino';

import { CONFIG, type Config } from '../platform/config/config.js';
import { PlatformError } from '../platform/errors/error-register.js';
import { LiveLogLevel } from '../platform/logging/live-log-level.js';
import { LOGGER } from '../platform/logging/logger.js';
import { verifyAnswer } from '../protocol/challenge.js';
import type { LocateRequest, LocateResponse } from '../protocol/locate.js';
import type {
  AuthorizeRequest,
  Grant,
  HeartbeatRequest,
  HeartbeatResponse,
  RegisterRequest,
  RegisterResponse,
} from '../protocol/plane-api.js';
import { SealError } from '../protocol/sealing.js';
import { PeerDirectories } from '../servers/peer-directories.js';
import { ServersRepository } from '../servers/servers.repository.js';
import { type Candidate, ClientSessionsRepository } from './client-sessions.repository.js';
import { TunnelKeys } from './tunnel-key.js';

/** Tunnels that one search by secret alone looks at: ~10 ms of CPU, which other requests wait for. */
const SEARCHED_TUNNELS_MAX = 1_000;

/** What became of a usage report; `repeated`: it was in the books. */
export const REPORT_OUTCOMES = ['booked', 'repeated', 'refused'] as const;
type ReportOutcome = (typeof REPORT_OUTCOMES)[number];

/** What bore-servers ask of the control plane (src/protocol/plane-api.ts). */
@Injectable()
export class PlaneService {
  /** Tells of each usage report. */
  readonly reports = new EventEmitter<{ handled: [ReportOutcome] }>();

  constructor(
    @Inject(CONFIG) private readonly config: Config,
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly servers: ServersRepository,
    private readonly directory: PeerDirectories,
    private readonly sessions: ClientSessionsRepository,
    private readonly keys: TunnelKeys,
    private readonly logLevel: LiveLogLevel,
  ) {}

  /** @throws PlatformError PORT_RANGE_TAKEN */
  async register(request: RegisterRequest): Promise<RegisterResponse> {
    const { serverId, peer } = request;
    const registration = await this.servers.register(request);
    if (registration.holder !== null) {
      this.logger.error(
        { serverId, holder: registration.holder },
        'bore-server refused: its public ports are another’s',
      );
      throw new PlatformError('PORT_RANGE_TAKEN', { detail: `they are those of ${registration.holder}` });
    }
    const { maxTunnels, newInstance } = registration;
    if (newInstance) await this.sessions.endAllOf(request.serverId);
    return {
      leaseSeconds: this.config.SERVER_LEASE_SECONDS,
      heartbeatIntervalMs: this.config.HEARTBEAT_INTERVAL_MS,
      maxTunnels,
      ...(peer && { peers: await this.directory.of(serverId) }),
    };
  }

  /**
   * The report of a heartbeat is in the books also when this throws SERVER_SUPERSEDED: what a process carried before
   * another took its place was carried.
   * @throws PlatformError SERVER_UNKNOWN, SERVER_SUPERSEDED
   */
  async heartbeat(serverId: string, beat: HeartbeatRequest): Promise<HeartbeatResponse> {
    const { outcome, drain, close, fences, update, reportOutcome } = await this.sessions.applyHeartbeat(serverId, beat);
    const { reporterId, sequence } = beat.report ?? {};
    if (reportOutcome !== null) this.reports.emit('handled', reportOutcome === 'applied' ? 'booked' : reportOutcome);
    if (reportOutcome === 'refused') {
      this.logger.error(
        { serverId, reporterId, sequence },
        'usage report refused: its reporter belongs to another server',
      );
    }
    if (outcome === 'unknown') throw new PlatformError('SERVER_UNKNOWN');
    if (outcome === 'superseded') throw new PlatformError('SERVER_SUPERSEDED');
    const peers = beat.peersVersion === undefined ? undefined : await this.directory.of(serverId);
    const { level: logLevel } = this.logLevel.current ?? {};
    return {
      drain,
      close,
      fences,
      update,
      reported: reportOutcome === 'refused' ? null : (sequence ?? null),
      ...(peers && peers.version !== beat.peersVersion && { peers }),
      ...(logLevel && { logLevel }),
    };
  }

  /**
   * Whose tunnel a client is that named no port, among those of the other servers of one name: the key that its answer
   * fits names the port, and the port its server, which then authorises the client as ever.
   * @throws PlatformError INVALID_SECRET, PORT_REQUIRED, SERVER_UNKNOWN, SERVER_SUPERSEDED
   */
  async locate({ serverId, instanceId, challenge, tag }: LocateRequest): Promise<LocateResponse> {
    await this.refuseOthers(serverId, instanceId);
    const candidates = await this.sessions.candidatesOfPeers(serverId, SEARCHED_TUNNELS_MAX);
    for (const candidate of candidates) {
      const key = this.keyOf(candidate);
      if (key && verifyAnswer(key, challenge, tag)) return { port: candidate.port };
    }
    throw new PlatformError(candidates.length < SEARCHED_TUNNELS_MAX ? 'INVALID_SECRET' : 'PORT_REQUIRED');
  }

  /** @throws PlatformError INVALID_SECRET, SERVER_UNKNOWN, SERVER_SUPERSEDED */
  async authorize(request: AuthorizeRequest): Promise<Grant> {
    const [candidates] = await Promise.all([
      this.sessions.candidates(request.serverId, request.port),
      this.refuseOthers(request.serverId, request.instanceId),
    ]);

    for (const candidate of candidates) {
      const key = this.keyOf(candidate);
      if (!key || !verifyAnswer(key, request.challenge, request.tag)) continue;
      const begun = await this.sessions.begin(candidate, request.serverId, request.sessionId, request.clientAddress);
      if (begun) return { ...begun, tunnelId: candidate.id, sessionId: request.sessionId, key: key.toString('hex') };
    }
    throw new PlatformError('INVALID_SECRET');
  }

  /** @throws PlatformError SERVER_UNKNOWN, SERVER_SUPERSEDED */
  private async refuseOthers(serverId: string, instanceId: string): Promise<void> {
    const server = await this.servers.find(serverId);
    if (server?.instanceId == null) throw new PlatformError('SERVER_UNKNOWN');
    if (server.instanceId !== instanceId) throw new PlatformError('SERVER_SUPERSEDED');
  }

  /** `undefined` when the key was sealed under a secret that is not configured any more: that tunnel cannot connect, others can. */
  private keyOf({ id, sealedKey }: Candidate): Buffer | undefined {
    try {
      return this.keys.open(sealedKey, id);
    } catch (err) {
      if (!(err instanceof SealError)) throw err;
      this.logger.error({ err, tunnelId: id }, 'the key of a tunnel cannot be opened: see TUNNEL_KEY_SECRET');
      return undefined;
    }
  }
}
