import { Inject, Injectable } from '@nestjs/common';
import { z } from 'zod';

import { auditInsert } from '../audit/audit-log.repository.js';
import { CONFIG, type Config } from '../platform/config/config.js';
import { Database } from '../platform/database/database.js';
import { Prisma } from '../platform/database/generated/client.js';
import { Fence } from '../protocol/plane-api.js';

/** A fence, and the server that is to put it up. */
const PlacedFence = Fence.extend({ serverId: z.string(), adminUrl: z.string().nullable() });
export type PlacedFence = z.infer<typeof PlacedFence>;

/**
 * Ends of client sessions that owners ask for. The rows say at once that they are over; bore-servers that could not be
 * told are, by the answer to their next heartbeat (apply_heartbeat).
 */
@Injectable()
export class TunnelFencesRepository {
  constructor(
    private readonly database: Database,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  /** Gives a user's tunnel another key; `null` when it is not theirs, not there, or at its end. */
  rotate(id: string, userId: string, sealedKey: Buffer<ArrayBuffer>): Promise<PlacedFence | null> {
    return this.fence(
      id,
      userId,
      'token_rotated',
      Prisma.sql`sealed_key = ${sealedKey}::bytea, key_version = t.key_version + 1,`,
      auditInsert(
        { action: 'tunnel.token_rotated', target: { type: 'tunnel', id: Prisma.sql`id` }, userId: Prisma.sql`user_id` },
        Prisma.sql`fenced`,
      ),
    );
  }

  /** Ends the session that carries a user's tunnel now, and what earlier ones have left; `null` as above. */
  disconnect(id: string, userId: string): Promise<PlacedFence | null> {
    return this.fence(
      id,
      userId,
      'disconnected',
      Prisma.empty,
      auditInsert(
        { action: 'tunnel.disconnected', target: { type: 'tunnel', id: Prisma.sql`id` }, userId: Prisma.sql`user_id` },
        Prisma.sql`fenced WHERE was_active`,
      ),
    );
  }

  private async fence(
    id: string,
    userId: string,
    reason: 'token_rotated' | 'disconnected',
    more: Prisma.Sql,
    audit: Prisma.Sql,
  ): Promise<PlacedFence | null> {
    const [fence] = await this.database.rows(
      PlacedFence,
      Prisma.sql`
        WITH locked AS MATERIALIZED (
          SELECT id, state = 'active' AS was_active FROM tunnels
          WHERE id = ${id}::uuid AND user_id = ${userId}::uuid AND state <> 'closed' AND (expires_at IS NULL OR expires_at > now())
          FOR NO KEY UPDATE),
        fenced AS (
          UPDATE tunnels t SET ${more} fenced_epoch = t.epoch, fence_reason = ${reason},
            state = CASE WHEN t.state = 'active' THEN 'offline' ELSE t.state END,
            idle_deadline = CASE WHEN t.state = 'active'
              THEN now() + make_interval(secs => ${this.config.OFFLINE_TUNNEL_SECONDS}::int) ELSE t.idle_deadline END
          FROM locked WHERE t.id = locked.id
          RETURNING t.id, t.user_id, t.server_id, t.fenced_epoch, t.key_version, locked.was_active),
        audited AS (${audit})
        SELECT f.id AS "tunnelId", f.fenced_epoch AS epoch, f.key_version AS "keyVersion", ${reason} AS reason,
          s.id AS "serverId", s.admin_url AS "adminUrl"
        FROM fenced f JOIN servers s ON s.id = f.server_id`,
    );
    return fence ?? null;
  }
}
