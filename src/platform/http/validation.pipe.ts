import { StandardSchemaValidationPipe } from '@nestjs/common';

import { PlatformError } from '../errors/error-register.js';

/** More would only repeat the same mistake. */
const ERRORS_SHOWN_MAX = 20;

/** Checks bodies, queries and parameters against the schema of their decorator. */
export function createValidationPipe(): StandardSchemaValidationPipe {
  return new StandardSchemaValidationPipe({
    exceptionFactory: (issues) =>
      new PlatformError('VALIDATION_FAILED', {
        errors: issues.slice(0, ERRORS_SHOWN_MAX).map((issue) => ({
          path: (issue.path ?? []).map((part) => String(typeof part === 'object' ? part.key : part)).join('.'),
          message: issue.message,
        })),
      }),
  });
}
