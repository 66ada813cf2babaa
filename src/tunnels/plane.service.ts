import { Inject, Injectable } from '@nestjs/common';
import type { Logger } from 'pino';

import { CONFIG, type Config } from '../platform/config/config.js';
import { PlatformError } from '../platform/errors/error-register.js';
import { LOGGER } from '../platform/logging/logger.js';
import { verifyAnswer } from '../protocol/challenge.js';
import type {
  AuthorizeRequest,
  Grant,
  HeartbeatRequest,
  HeartbeatResponse,
  RegisterRequest,
  RegisterResponse,
} from '../protocol/plane-api.js';
import { SealError } from '../protocol/sealing.js';
import { ServersRepository } from '../servers/servers.repository.js';
import { type Candidate, ClientSessionsRepository } from './client-sessions.repository.js';
import { TunnelKeys } from './tunnel-key.js';

/** What bore-servers ask of the control plane (src/protocol/plane-api.ts). */
@Injectable()
export class PlaneService {
  constructor(
    @Inject(CONFIG) private readonly config: Config,
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly servers: ServersRepository,
    private readonly sessions: ClientSessionsRepository,
    private readonly keys: TunnelKeys,
  ) {}

  async register(request: RegisterRequest): Promise<RegisterResponse> {
    const { maxTunnels, newInstance } = await this.servers.register(request);
    if (newInstance) await this.sessions.endAllOf(request.serverId);
    return {
      leaseSeconds: this.config.SERVER_LEASE_SECONDS,
      heartbeatIntervalMs: this.config.HEARTBEAT_INTERVAL_MS,
      maxTunnels,
    };
  }

  /**
   * The report of a heartbeat is in the books also when this throws SERVER_SUPERSEDED: what a process carried before
   * another took its place was carried.
   * @throws PlatformError SERVER_UNKNOWN, SERVER_SUPERSEDED
   */
  async heartbeat(serverId: string, beat: HeartbeatRequest): Promise<HeartbeatResponse> {
    const { outcome, drain, close, update, reportOutcome } = await this.sessions.applyHeartbeat(serverId, beat);
    const { reporterId, sequence } = beat.report ?? {};
    if (reportOutcome === 'refused') {
      this.logger.error(
        { serverId, reporterId, sequence },
        'usage report refused: its reporter belongs to another server',
      );
    }
    if (outcome === 'unknown') throw new PlatformError('SERVER_UNKNOWN');
    if (outcome === 'superseded') throw new PlatformError('SERVER_SUPERSEDED');
    return { drain, close, update, reported: reportOutcome === 'refused' ? null : (sequence ?? null) };
  }

  /** @throws PlatformError INVALID_SECRET, SERVER_UNKNOWN, SERVER_SUPERSEDED */
  async authorize(request: AuthorizeRequest): Promise<Grant> {
    const [server, candidates] = await Promise.all([
      this.servers.find(request.serverId),
      this.sessions.candidates(request.serverId, request.port),
    ]);
    if (server?.instanceId == null) throw new PlatformError('SERVER_UNKNOWN');
    if (server.instanceId !== request.instanceId) throw new PlatformError('SERVER_SUPERSEDED');

    for (const candidate of candidates) {
      const key = this.keyOf(candidate);
      if (!key || !verifyAnswer(key, request.challenge, request.tag)) continue;
      const begun = await this.sessions.begin(candidate, request.sessionId, request.clientAddress);
      if (begun) return { ...begun, tunnelId: candidate.id, sessionId: request.sessionId, key: key.toString('hex') };
    }
    throw new PlatformError('INVALID_SECRET');
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
