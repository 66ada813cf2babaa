import { type CallHandler, type ExecutionContext, Inject, Injectable, type NestInterceptor } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { concatMap, from, lastValueFrom, type Observable } from 'rxjs';

import { LOGGER } from '../logging/logger.js';
import { AccountWrites } from './account-writes.js';
import { Database } from './database.js';

/**
 * Marks each request that may change something as a write of its account, from before its route runs until it is answered;
 * and one that is no such request, but has written all the same, before it is answered.
 */
@Injectable()
export class AccountWritesInterceptor implements NestInterceptor {
  constructor(
    private readonly database: Database,
    private readonly writes: AccountWrites,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    if (!this.database.hasReplicas) return next.handle();
    const request = context.switchToHttp().getRequest<FastifyRequest>();
    const isRead = request.method === 'GET' || request.method === 'HEAD';
    const accountId = isRead ? undefined : request.caller?.userId;
    if (accountId !== undefined) return from(this.run(accountId, next));
    // answer by answer: it may be a stream
    return next.handle().pipe(
      concatMap(async (answer: unknown) => {
        if (request.wroteFor !== undefined) await this.writes.finished(request.wroteFor, { begun: false });
        return answer;
      }),
    );
  }

  private async run(accountId: string, next: CallHandler): Promise<unknown> {
    await this.writes.begun(accountId);
    try {
      return await lastValueFrom(next.handle(), { defaultValue: undefined });
    } finally {
      await this.finish(accountId);
    }
  }

  /** What was done is done, also where this fails: then the account's reads stay on the primary. */
  private async finish(accountId: string): Promise<void> {
    try {
      await this.writes.finished(accountId, { begun: true });
    } catch (err) {
      this.logger.warn({ err, userId: accountId }, 'a write of an account is still marked as pending');
    }
  }
}
