import type { LoggerService } from '@nestjs/common';
import { pino, type Logger } from 'pino';

/** Injection token of the process's pino logger. */
export const LOGGER = Symbol('LOGGER');

/** Headers and fields that carry secrets, censored wherever a log object should hold them after all. */
const REDACTED = ['password', 'token', 'accessToken', 'refreshToken', 'authorization', 'key', 'secret'];

/** JSON lines on stdout. Errors go under `err`. */
export function createLogger(level: string): Logger {
  // whoever read the log is gone: we go on without. Pino's own destination would try for ever at the next fatal line
  process.stdout.on('error', () => undefined);
  return pino(
    {
      level,
      base: { service: 'bore-backend', pid: process.pid },
      formatters: { level: (label) => ({ level: label }) },
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: { paths: REDACTED.flatMap((name) => [name, `*.${name}`]), censor: '***' },
    },
    process.stdout,
  );
}

/** Lets Nest's own messages go through pino. Its start-up chatter is debug. */
export class NestLogger implements LoggerService {
  constructor(private readonly logger: Logger) {}

  log(message: unknown, ...rest: unknown[]): void {
    this.logger.debug({ context: rest.at(-1) }, String(message));
  }

  debug(message: unknown, ...rest: unknown[]): void {
    this.logger.debug({ context: rest.at(-1) }, String(message));
  }

  verbose(message: unknown, ...rest: unknown[]): void {
    this.logger.trace({ context: rest.at(-1) }, String(message));
  }

  warn(message: unknown, ...rest: unknown[]): void {
    this.logger.warn({ context: rest.at(-1) }, String(message));
  }

  error(message: unknown, ...rest: unknown[]): void {
    this.logger.error(
      { err: message instanceof Error ? message : undefined, context: rest.at(-1), stack: rest[0] },
      String(message),
    );
  }

  fatal(message: unknown, ...rest: unknown[]): void {
    this.logger.fatal({ context: rest.at(-1) }, String(message));
  }
}
