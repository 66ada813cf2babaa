/**
 * Requests that create something, done once however often they are sent (`Idempotency-Key`).
 *
 *     client                       backend                                         database
 *       | -- POST, key, body -------> | -- claim the key -------------------------------> |  a row: hash of the body, id and
 *       |                             |                                                   |  secret of what will be created
 *       |                             | -- create it under that id, in one statement ---> |
 *       |                             | -- keep the answer, sealed ---------------------> |
 *       | <------------- 201 -------- |
 *       | -- the same again --------> | -- claim: there is an answer ------------------>  |
 *       | <- 201, the same answer --- |
 *
 * Who repeats it while it runs waits for the answer. When its backend is gone, the claim runs out, and the next one does it
 * again under the same id: what was created is found, not created twice, and its token is made of the same secret. So a
 * route of this kind must take id and secret from {@link CurrentNewResource}, and treat "exists already, and is this
 * caller's" as done.
 *
 * A refusal releases the key. A failure of which nobody knows what it has done keeps it for the same request.
 */
import { createHash } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';

import {
  applyDecorators,
  type CallHandler,
  createParamDecorator,
  type ExecutionContext,
  Inject,
  Injectable,
  type NestInterceptor,
  UseInterceptors,
} from '@nestjs/common';
import { ApiHeader } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { catchError, mergeMap, type Observable, of } from 'rxjs';

import { PlatformError } from '../errors/error-register.js';
import { LOGGER } from '../logging/logger.js';
import {
  type Claim,
  IdempotencyKeysRepository,
  type IdempotencyScope,
  type NewResource,
  newResource,
} from './idempotency-keys.repository.js';

/** Visible ASCII. */
const KEY = /^[\x21-\x7e]{1,255}$/;
/** How long a repeated request waits for the answer to the first: twice as long as a claim lasts. */
const WAIT_MS = 10_000;
/** Pause between two looks: doubled from the first to the second of these. */
const LOOK_MS_MIN = 25;
const LOOK_MS_MAX = 500;
/** No request of ours is nested deeper, and each level is one of our stack. */
const BODY_DEPTH_MAX = 20;

declare module 'fastify' {
  interface FastifyRequest {
    /** What it creates, where that was decided before. */
    newResource?: NewResource;
  }
}

/** Id and secret of what the request creates. */
export const CurrentNewResource = createParamDecorator(
  (_: unknown, context: ExecutionContext): NewResource =>
    context.switchToHttp().getRequest<FastifyRequest>().newResource ?? newResource(),
);

@Injectable()
class IdempotencyInterceptor implements NestInterceptor {
  constructor(
    private readonly keys: IdempotencyKeysRepository,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  async intercept(context: ExecutionContext, next: CallHandler): Promise<Observable<unknown>> {
    const request = context.switchToHttp().getRequest<FastifyRequest>();
    const key = request.headers['idempotency-key'];
    if (key === undefined) return next.handle();
    if (typeof key !== 'string' || !KEY.test(key)) {
      throw new PlatformError('VALIDATION_FAILED', {
        errors: [{ path: 'Idempotency-Key', message: 'must be 1 to 255 visible ASCII characters' }],
      });
    }
    if (!request.caller) throw new Error('Idempotent is used on a route that needs no account');
    const scope = { userId: request.caller.userId, route: `${request.method} ${request.routeOptions.url}`, key };
    const bodyHash = createHash('sha256').update(canonicalJson(request.body)).digest();
    const found = await this.claim(scope, bodyHash);
    if (found.kind === 'answered') {
      void context.switchToHttp().getResponse<FastifyReply>().header('idempotency-replayed', 'true');
      return of(found.answer);
    }
    request.newResource = found.resource;
    return next.handle().pipe(
      mergeMap((answer) => this.keys.answer(scope, found, answer)),
      catchError(async (error: unknown) => {
        await this.giveUp(scope, found, error);
        throw error;
      }),
    );
  }

  /** @throws PlatformError IDEMPOTENCY_KEY_IN_USE, IDEMPOTENCY_KEY_REUSED, IDEMPOTENCY_ANSWER_LOST */
  private async claim(scope: IdempotencyScope, bodyHash: Buffer<ArrayBuffer>) {
    const deadline = performance.now() + WAIT_MS;
    for (let pauseMs = LOOK_MS_MIN; ; pauseMs = Math.min(LOOK_MS_MAX, pauseMs * 2)) {
      const found = await this.keys.claim(scope, bodyHash);
      if (found.kind === 'claimed' || found.kind === 'answered') return found;
      if (found.kind === 'lost') {
        this.logger.warn({ err: found.cause, route: scope.route }, 'what an idempotency key keeps cannot be read');
        throw new PlatformError('IDEMPOTENCY_ANSWER_LOST');
      }
      if (found.kind === 'reused') throw new PlatformError('IDEMPOTENCY_KEY_REUSED');
      if (performance.now() + pauseMs > deadline) throw new PlatformError('IDEMPOTENCY_KEY_IN_USE', { retryAfter: 1 });
      await setTimeout(pauseMs);
    }
  }

  private async giveUp(scope: IdempotencyScope, claim: Claim, error: unknown): Promise<void> {
    try {
      // an expected refusal was decided before anything was created; of anything else nobody knows
      if (error instanceof PlatformError) await this.keys.release(scope, claim);
      else await this.keys.abandon(scope, claim);
    } catch (err) {
      this.logger.warn({ err, route: scope.route }, 'an idempotency key stays claimed until its claim runs out');
    }
  }
}

/** The route takes an `Idempotency-Key`. It answers with one status when it succeeds. */
export const Idempotent = () =>
  applyDecorators(
    UseInterceptors(IdempotencyInterceptor),
    ApiHeader({
      name: 'Idempotency-Key',
      required: false,
      description: 'The same key and body again give the first answer again, for 24 hours',
    }),
  );

/** One text for equal values, whatever the order of their members. @throws PlatformError VALIDATION_FAILED */
function canonicalJson(value: unknown, depth = 0): string {
  if (depth > BODY_DEPTH_MAX) {
    throw new PlatformError('VALIDATION_FAILED', { errors: [{ path: '', message: 'is nested too deeply' }] });
  }
  if (Array.isArray(value)) return `[${value.map((item) => canonicalJson(item, depth + 1)).join()}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value ?? null);
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member, depth + 1)}`).join()}}`;
}
