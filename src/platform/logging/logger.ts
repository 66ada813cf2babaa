import type { LoggerService } from '@nestjs/common';
import type { Logger } from 'pino';

import { createJsonLines } from '../../logging/json-lines.js';
import { idsOfSpan, isTracing } from '../../tracing/spans.js';
import { currentRequest } from '../http/request-context.js';
import { currentJob } from '../queue/job-context.js';

/** Injection token of the process's pino logger. */
export const LOGGER = Symbol('LOGGER');

/** Of a message of Nest's, which may quote what it was given. */
const MESSAGE_CHARS_MAX = 2_000;

/** The backend's log. A line that is written while a request is answered or a job runs says which. */
export function createLogger(level: string): Logger {
  const ids = isTracing() ? idsOfSpan : () => ({});
  return createJsonLines('bore-backend', level, () => {
    const request = currentRequest();
    return { ...(request ? { requestId: request.id } : currentJob()), ...ids() };
  });
}

/** Lets Nest's own messages go through pino. Its start-up chatter is debug. */
export class NestLogger implements LoggerService {
  constructor(private readonly logger: Logger) {}

  log(message: unknown, ...rest: unknown[]): void {
    this.logger.debug({ context: contextOf(rest) }, textOf(message));
  }

  debug(message: unknown, ...rest: unknown[]): void {
    this.logger.debug({ context: contextOf(rest) }, textOf(message));
  }

  verbose(message: unknown, ...rest: unknown[]): void {
    this.logger.trace({ context: contextOf(rest) }, textOf(message));
  }

  warn(message: unknown, ...rest: unknown[]): void {
    this.logger.warn({ context: contextOf(rest) }, textOf(message));
  }

  error(message: unknown, ...rest: unknown[]): void {
    const err = [message, ...rest].find((each) => each instanceof Error);
    this.logger.error({ err, context: contextOf(rest) }, textOf(message));
  }

  fatal(message: unknown, ...rest: unknown[]): void {
    this.logger.fatal({ context: contextOf(rest) }, textOf(message));
  }
}

function textOf(message: unknown): string {
  return String(message).slice(0, MESSAGE_CHARS_MAX);
}

/** Where Nest's message comes from; last, where it is there: behind an error that may be its stack. */
function contextOf(rest: readonly unknown[]): unknown {
  const last = rest.at(-1);
  return typeof last === 'string' && !last.includes('\n') ? last : undefined;
}
