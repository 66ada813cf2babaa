import { randomBytes } from 'node:crypto';

import { Inject, Injectable } from '@nestjs/common';
import { v4 as uuidv4, v7 as uuidv7 } from 'uuid';
import { z } from 'zod';

import { SealError, Sealer } from '../../protocol/sealing.js';
import { CONFIG, type Config } from '../config/config.js';
import { Database } from '../database/database.js';
import { Prisma } from '../database/generated/client.js';

/**
 * How long nobody else takes over a request whose backend says nothing: longer than one takes (its locks and statements
 * have limits of their own), shorter than others wait for it. Taking over one that is only slow does no harm.
 */
const CLAIM_SECONDS = 5;
/** How long an answer is kept. */
const KEPT_HOURS = 24;
/** Answers kept for one account, ~2 KB each; the oldest is forgotten first. */
const KEYS_PER_USER_MAX = 1_000;
/** Bytes of the secret that a token is made of. */
const SECRET_BYTES = 32;

/** What a request creates: decided before it is created, so that whoever does it again does the same. */
export interface NewResource {
  readonly id: string;
  /** Random bytes that the resource's token is made of. */
  readonly secret: Buffer;
}

/** What was not decided by anybody before. */
export function newResource(): NewResource {
  return { id: uuidv7(), secret: randomBytes(SECRET_BYTES) };
}

/** Which request of whom. */
export interface IdempotencyScope {
  readonly userId: string;
  /** Method and path pattern. */
  readonly route: string;
  readonly key: string;
}

/** Leave to do a request. */
export interface Claim {
  readonly kind: 'claimed';
  readonly id: string;
  readonly resource: NewResource;
}

/** What has become of a request that came before. */
type Found =
  | Claim
  | { readonly kind: 'answered'; readonly answer: unknown }
  | { readonly kind: 'running' | 'reused' }
  /** It was sealed under a secret that is not configured any more: whether it was done is not known here. */
  | { readonly kind: 'lost'; readonly cause: SealError };

const Row = z.object({
  isMine: z.boolean(),
  bodyHash: z.instanceof(Uint8Array),
  resourceId: z.guid(),
  sealedSecret: z.instanceof(Uint8Array),
  sealedAnswer: z.instanceof(Uint8Array).nullable(),
});

/** Requests under an `Idempotency-Key`, and their answers, sealed: they hold tokens (G7). */
@Injectable()
export class IdempotencyKeysRepository {
  private readonly sealer: Sealer;

  constructor(
    private readonly database: Database,
    @Inject(CONFIG) config: Config,
  ) {
    this.sealer = new Sealer(
      config.TUNNEL_KEY_SECRET.map((secret) => secret.reveal()),
      'idempotency',
    );
  }

  /** Claims a request, also one that nobody is at work on any more, or says what has become of it: one statement. */
  async claim({ userId, route, key }: IdempotencyScope, bodyHash: Buffer<ArrayBuffer>): Promise<Found> {
    const claimId = uuidv4();
    const fresh = newResource();
    const [row] = await this.database.rows(
      Row,
      // who inserts makes room first: one goes for one that comes
      Prisma.sql`
        WITH claimed AS (
          INSERT INTO idempotency_keys AS k (user_id, route, key, body_hash, resource_id, sealed_secret, claim_id, claimed_until)
          VALUES (${userId}::uuid, ${route}, ${key}, ${bodyHash}::bytea, ${fresh.id}::uuid,
            ${this.sealer.seal(fresh.secret, fresh.id)}::bytea, ${claimId}::uuid, now() + make_interval(secs => ${CLAIM_SECONDS}::int))
          ON CONFLICT (user_id, route, key) DO UPDATE SET claim_id = excluded.claim_id, claimed_until = excluded.claimed_until
            WHERE k.body_hash = excluded.body_hash AND k.sealed_answer IS NULL AND k.claimed_until <= now()
          RETURNING *),
        forgotten AS (
          DELETE FROM idempotency_keys WHERE (user_id, route, key) IN (
            SELECT user_id, route, key FROM idempotency_keys
            WHERE user_id = ${userId}::uuid AND (route, key) <> (${route}, ${key}) AND claimed_until <= now()
            ORDER BY created_at DESC OFFSET ${KEYS_PER_USER_MAX - 1}::int LIMIT 1)),
        found AS (
          SELECT * FROM claimed
          UNION ALL
          SELECT * FROM idempotency_keys
          WHERE user_id = ${userId}::uuid AND route = ${route} AND key = ${key} AND NOT EXISTS (SELECT FROM claimed))
        SELECT claim_id = ${claimId}::uuid AS "isMine", body_hash AS "bodyHash", resource_id AS "resourceId",
          sealed_secret AS "sealedSecret", sealed_answer AS "sealedAnswer" FROM found`,
    );
    // none: it came between the two halves of the statement
    if (!row) return { kind: 'running' };
    const { isMine, resourceId, sealedAnswer } = row;
    try {
      if (isMine) {
        const secret = this.sealer.open(row.sealedSecret, resourceId);
        return { kind: 'claimed', id: claimId, resource: { id: resourceId, secret } };
      }
      if (!bodyHash.equals(row.bodyHash)) return { kind: 'reused' };
      if (!sealedAnswer) return { kind: 'running' };
      return { kind: 'answered', answer: this.open(sealedAnswer, resourceId) };
    } catch (cause) {
      if (cause instanceof SealError) return { kind: 'lost', cause };
      throw cause;
    }
  }

  /** Keeps the answer to a request, and returns the one that is kept: the first, whoever gave it. */
  async answer({ userId, route, key }: IdempotencyScope, { resource }: Claim, answer: unknown): Promise<unknown> {
    const sealed = this.sealer.seal(Buffer.from(JSON.stringify(answer)), answerOf(resource.id));
    const [kept] = await this.database.rows(
      z.object({ sealedAnswer: z.instanceof(Uint8Array) }),
      Prisma.sql`
        UPDATE idempotency_keys SET sealed_answer = coalesce(sealed_answer, ${sealed}::bytea)
        WHERE user_id = ${userId}::uuid AND route = ${route} AND key = ${key} AND resource_id = ${resource.id}::uuid
        RETURNING sealed_answer AS "sealedAnswer"`,
    );
    return kept ? this.open(kept.sealedAnswer, resource.id) : answer;
  }

  /** The request was refused, and nothing created: the key may be used again, for another request too. */
  async release({ userId, route, key }: IdempotencyScope, { id }: Claim): Promise<void> {
    await this.database.$executeRaw`
      DELETE FROM idempotency_keys
      WHERE user_id = ${userId}::uuid AND route = ${route} AND key = ${key} AND claim_id = ${id}::uuid AND sealed_answer IS NULL`;
  }

  /** The request failed, and may have been done all the same: whoever repeats it may do so now, as the same. */
  async abandon({ userId, route, key }: IdempotencyScope, { id }: Claim): Promise<void> {
    await this.database.$executeRaw`
      UPDATE idempotency_keys SET claimed_until = now()
      WHERE user_id = ${userId}::uuid AND route = ${route} AND key = ${key} AND claim_id = ${id}::uuid`;
  }

  /** Deletes at most `limit` keys that are older than they are kept; returns how many. */
  forget(limit: number): Promise<number> {
    return this.database.$executeRaw`
      DELETE FROM idempotency_keys WHERE (user_id, route, key) IN (
        SELECT user_id, route, key FROM idempotency_keys WHERE created_at < now() - make_interval(hours => ${KEPT_HOURS}::int)
        LIMIT ${limit} FOR UPDATE SKIP LOCKED)`;
  }

  private open(sealedAnswer: Uint8Array, resourceId: string): unknown {
    return JSON.parse(this.sealer.open(sealedAnswer, answerOf(resourceId)).toString());
  }
}

/** What an answer is sealed for: it must not pass for a secret. */
function answerOf(resourceId: string): string {
  return `answer of ${resourceId}`;
}
