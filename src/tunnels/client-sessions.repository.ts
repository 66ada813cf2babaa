import { Inject, Injectable } from '@nestjs/common';
import { z } from 'zod';

import { CONFIG, type Config } from '../platform/config/config.js';
import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import { ProxyProtocol } from '../platform/database/generated/enums.js';
import { type Grant, type HeartbeatRequest, HeartbeatResponse } from '../protocol/plane-api.js';
import { effectiveBandwidth, settingsOf } from './tunnel-settings.js';

/** Longer than authorize may take (2 s) with a heartbeat in flight beside it, shorter than a server's lease. */
const SETTLE_SECONDS = 10;

const Candidate = z.object({ id: z.guid(), sealedKey: z.instanceof(Uint8Array) });
/** A tunnel that a client's answer to the challenge may belong to. */
export type Candidate = z.infer<typeof Candidate>;
/** One that may be on another server. */
const PeerCandidate = Candidate.extend({ port: z.int() });

const Begun = z.object({
  port: z.int(),
  epoch: z.int(),
  keyVersion: z.int(),
  expiresAt: z.date().nullable(),
  settingsVersion: z.int(),
  maxConnections: z.int().nullable(),
  bandwidthMbps: z.int().nullable(),
  allowCidrs: z.array(z.string()),
  denyCidrs: z.array(z.string()),
  proxyProtocol: z.enum(ProxyProtocol).nullable(),
});

/** What `apply_heartbeat` did (prisma/migrations). */
const Applied = z.object({
  outcome: z.enum(['applied', 'late', 'superseded', 'unknown']),
  drain: z.boolean(),
  close: HeartbeatResponse.shape.close,
  update: HeartbeatResponse.shape.update,
  fences: HeartbeatResponse.shape.fences,
  /** `refused`: the reporter belongs to another server. */
  reportOutcome: z.enum(['applied', 'repeated', 'refused']).nullable(),
});

/** Client sessions in the database: which one carries a tunnel, and which may begin. */
@Injectable()
export class ClientSessionsRepository {
  constructor(
    private readonly database: Database,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  /** Open tunnels of a server at a port, or at any with 0: never more than the server's limit of tunnels. */
  candidates(serverId: string, port: number): Promise<Candidate[]> {
    return this.database.rows(
      Candidate,
      Prisma.sql`
        SELECT id, sealed_key AS "sealedKey" FROM tunnels
        WHERE server_id = ${serverId} AND state <> 'closed' AND (${port}::int = 0 OR port = ${port}::int)
          AND (expires_at IS NULL OR expires_at > now())`,
    );
  }

  /**
   * Open tunnels of the other servers that share a server's public name; first those that want a client, the latest first.
   * @param limit as many at most
   */
  candidatesOfPeers(serverId: string, limit: number): Promise<z.infer<typeof PeerCandidate>[]> {
    return this.database.rows(
      PeerCandidate,
      Prisma.sql`
        SELECT t.id, t.sealed_key AS "sealedKey", t.port
        FROM servers me JOIN servers p ON lower(p.host) = lower(me.host) AND p.id <> me.id JOIN tunnels t ON t.server_id = p.id
        WHERE me.id = ${serverId} AND me.peer_host IS NOT NULL AND p.peer_host IS NOT NULL
          AND t.state <> 'closed' AND (t.expires_at IS NULL OR t.expires_at > now())
        ORDER BY t.state = 'active', t.idle_deadline DESC NULLS LAST, t.connected_at DESC LIMIT ${limit}`,
    );
  }

  /**
   * Begins a session with the tunnel's next epoch. `null` when the tunnel was closed or moved to another server, or its key
   * changed, since the candidate was read, its owner is suspended, or its server disabled.
   */
  async begin(
    candidate: Candidate,
    serverId: string,
    sessionId: string,
    clientAddress: string,
  ): Promise<Pick<Grant, 'port' | 'epoch' | 'keyVersion' | 'settings' | 'expiresAt'> | null> {
    const [begun] = await this.database.rows(
      Begun,
      Prisma.sql`
        UPDATE tunnels t SET state = 'active', session_id = ${sessionId}::uuid, epoch = t.epoch + 1,
          client_address = ${clientAddress}, connected_at = now(), idle_deadline = NULL
        FROM users u
        WHERE t.id = ${candidate.id}::uuid AND t.server_id = ${serverId} AND t.state <> 'closed' AND t.sealed_key = ${candidate.sealedKey}::bytea
          AND u.id = t.user_id AND u.suspended_at IS NULL
          AND NOT EXISTS (SELECT FROM servers s WHERE s.id = t.server_id AND s.state = 'disabled')
        RETURNING t.port, t.epoch, t.key_version AS "keyVersion", t.expires_at AS "expiresAt", t.settings_version AS "settingsVersion",
          t.max_connections AS "maxConnections", t.bandwidth_mbps AS "bandwidthMbps", t.allow_cidrs AS "allowCidrs",
          t.deny_cidrs AS "denyCidrs", t.proxy_protocol AS "proxyProtocol"`,
    );
    if (!begun) return null;
    return {
      port: begun.port,
      epoch: begun.epoch,
      keyVersion: begun.keyVersion,
      settings: settingsOf(begun, this.config.MAX_BANDWIDTH_PER_TUNNEL),
      expiresAt: begun.expiresAt?.toISOString() ?? null,
    };
  }

  /** Applies a heartbeat and its report (prisma/migrations, apply_heartbeat): one statement, however much it says. */
  async applyHeartbeat(serverId: string, beat: HeartbeatRequest): Promise<z.infer<typeof Applied>> {
    const [applied] = await this.database.rows(
      Applied,
      Prisma.sql`
        SELECT outcome, drain, close_ AS close, update_ AS update, fence_ AS fences,
          report_outcome AS "reportOutcome" FROM apply_heartbeat(
          ${serverId}, ${beat.instanceId}::uuid, ${beat.sequence}::int, ${beat.draining}, ${beat.load.connections}::int,
          ${beat.load.bandwidthMbps}::float, ${JSON.stringify(beat.sessions)}::jsonb, ${JSON.stringify(beat.ended)}::jsonb,
          ${this.config.SERVER_LEASE_SECONDS}::int, ${this.config.OFFLINE_TUNNEL_SECONDS}::int, ${SETTLE_SECONDS}::int,
          ${beat.report ? JSON.stringify(beat.report) : null}::jsonb, ${JSON.stringify(beat.kept ?? [])}::jsonb)`,
    );
    if (!applied) throw new Error('apply_heartbeat returned no row');
    const bandwidthMax = this.config.MAX_BANDWIDTH_PER_TUNNEL;
    const update = applied.update.map(({ tunnelId, settings }) => ({
      tunnelId,
      settings: { ...settings, bandwidthMbps: effectiveBandwidth(settings.bandwidthMbps, bandwidthMax) },
    }));
    return { ...applied, update };
  }

  /** A new process carries none of the sessions of the one before it. */
  async endAllOf(serverId: string): Promise<void> {
    await this.database.$executeRaw`
      WITH locked AS MATERIALIZED (SELECT id FROM servers WHERE id = ${serverId} FOR NO KEY UPDATE)
      UPDATE tunnels t SET state = 'offline', idle_deadline = now() + make_interval(secs => ${this.config.OFFLINE_TUNNEL_SECONDS})
      FROM locked WHERE t.server_id = locked.id AND t.state = 'active'`;
  }
}
