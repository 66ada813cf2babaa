import { pino, type Logger } from 'pino';

import { allowedFields } from './log-fields.js';
import { scrub } from './scrub.js';

/**
 * A program's log: JSON lines on stdout, with the fields of log-fields.ts and no others, and without anything that looks like a
 * secret. Errors go under `err`.
 * @param context what every line says of the work it was written in, such as `requestId`; a new object each time
 */
export function createJsonLines(service: string, level: string, context: () => object = () => ({})): Logger {
  // whoever read the log is gone: we go on without. Pino's own destination would try for ever at the next fatal line
  process.stdout.on('error', () => undefined);
  return pino(
    {
      level,
      base: { service, pid: process.pid },
      formatters: { level: (label) => ({ level: label }), log: allowedFields },
      // reduced already; pino's own would take the type for that of the reduced one
      serializers: { err: (reduced: unknown) => reduced },
      timestamp: pino.stdTimeFunctions.isoTime,
      mixin: context,
      hooks: { streamWrite: scrub },
    },
    process.stdout,
  );
}
