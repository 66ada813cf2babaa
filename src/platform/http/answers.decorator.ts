import { applyDecorators, HttpCode, SerializeOptions } from '@nestjs/common';
import { ApiExtension, ApiResponse } from '@nestjs/swagger';
import type { z } from 'zod';

import type { ErrorCode } from '../errors/error-register.js';

/** Where an operation of the OpenAPI document names its own errors (see error-responses.ts). */
export const ERROR_CODES_EXTENSION = 'x-error-codes';

/**
 * What a route answers: its status, the schema that its body is cut to (a field that the schema does not name never
 * leaves the process), and the errors of its own. OpenAPI says the same, and adds the errors that every route of its kind
 * has: authentication, validation, outages.
 */
export function Answers(status: number, body: z.ZodType | null, ...errors: ErrorCode[]): MethodDecorator {
  return applyDecorators(
    HttpCode(status),
    ApiResponse(
      body ? { status, description: 'Done', standardSchema: body } : { status, description: 'Done; no body' },
    ),
    ...(body ? [SerializeOptions({ schema: body })] : []),
    ApiExtension(ERROR_CODES_EXTENSION, errors),
  );
}
