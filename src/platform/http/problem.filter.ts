import { Catch, HttpException, Inject, type ArgumentsHost, type ExceptionFilter } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { z } from 'zod';

import { isDatabaseUnavailable } from '../database/database.js';
import { ERROR_REGISTER, PlatformError, type ErrorCode } from '../errors/error-register.js';
import { LOGGER } from '../logging/logger.js';

/** What a caller should wait, in seconds, when we are short of something that returns by itself. */
const UNAVAILABLE_RETRY_SECONDS = 5;

/** RFC 9457 problem document, as every error of the API answers. */
export const Problem = z.object({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  // Object.keys forgets which keys they are
  // oxlint-disable-next-line typescript/consistent-type-assertions
  code: z.enum(Object.keys(ERROR_REGISTER) as [ErrorCode, ...ErrorCode[]]),
  detail: z.string(),
  instance: z.string(),
  requestId: z.string(),
  errors: z.array(z.object({ path: z.string(), message: z.string() })).optional(),
  retryAfter: z.int().optional(),
});
export type Problem = z.infer<typeof Problem>;

/** Statuses that Nest and Fastify refuse with before a route of ours runs. */
const CODE_OF_STATUS: Partial<Record<number, ErrorCode>> = {
  400: 'MALFORMED_REQUEST',
  401: 'UNAUTHENTICATED',
  403: 'FORBIDDEN',
  404: 'NOT_FOUND',
  405: 'METHOD_NOT_ALLOWED',
  408: 'REQUEST_TIMEOUT',
  413: 'PAYLOAD_TOO_LARGE',
  415: 'UNSUPPORTED_MEDIA_TYPE',
  429: 'TOO_MANY_REQUESTS',
  503: 'UNAVAILABLE',
};

/** The body of a problem document for one request. */
export function problemOf(error: PlatformError, request: Pick<FastifyRequest, 'id' | 'url'>): Problem {
  const { status, title } = ERROR_REGISTER[error.code];
  const { detail, errors, retryAfter } = error.details;
  return {
    type: `urn:bore-platform:error:${error.code}`,
    title,
    status,
    code: error.code,
    detail: detail ?? title,
    // without the query: it is the caller's text, and may hold what should not be repeated
    instance: request.url.split('?', 1)[0] ?? '/',
    requestId: request.id,
    ...(errors && { errors: [...errors] }),
    ...(retryAfter !== undefined && { retryAfter }),
  };
}

/** Turns whatever a route threw into a problem document; what nobody expected is logged here, once. */
@Catch()
export class ProblemFilter implements ExceptionFilter {
  constructor(@Inject(LOGGER) private readonly logger: Logger) {}

  catch(thrown: unknown, host: ArgumentsHost): void {
    const request = host.switchToHttp().getRequest<FastifyRequest>();
    const reply = host.switchToHttp().getResponse<FastifyReply>();
    const error = this.expected(thrown, request);
    sendProblem(error, request, reply);
  }

  private expected(thrown: unknown, request: FastifyRequest): PlatformError {
    if (thrown instanceof PlatformError) return thrown;
    const status = statusOf(thrown);
    const code = status === undefined ? undefined : CODE_OF_STATUS[status];
    if (code) return new PlatformError(code);
    if (isDatabaseUnavailable(thrown)) {
      this.logger.warn({ err: thrown, requestId: request.id }, 'database is not available');
      return new PlatformError('UNAVAILABLE', { retryAfter: UNAVAILABLE_RETRY_SECONDS });
    }
    const { method } = request;
    this.logger.error(
      { err: thrown, requestId: request.id, method, route: request.routeOptions.url },
      'request failed',
    );
    return new PlatformError('INTERNAL_ERROR');
  }
}

/** Writes a problem document, `Retry-After` included. */
export function sendProblem(error: PlatformError, request: FastifyRequest, reply: FastifyReply): void {
  const problem = problemOf(error, request);
  // errors before routing have passed no hook
  void reply.header('x-request-id', request.id);
  if (problem.retryAfter !== undefined) void reply.header('retry-after', String(problem.retryAfter));
  if (problem.status === 401) void reply.header('www-authenticate', 'Bearer');
  void reply.status(problem.status).type('application/problem+json').send(problem);
}

function statusOf(thrown: unknown): number | undefined {
  if (thrown instanceof HttpException) return thrown.getStatus();
  // Fastify's own errors: body too large, bad JSON, wrong media type …
  if (thrown instanceof Error && 'statusCode' in thrown && typeof thrown.statusCode === 'number')
    return thrown.statusCode;
  return undefined;
}
