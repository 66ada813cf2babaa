import { applyDecorators, HttpCode, SerializeOptions } from '@nestjs/common';
import { ApiResponse } from '@nestjs/swagger';
import type { z } from 'zod';

import { ERROR_REGISTER, type ErrorCode } from '../errors/error-register.js';

/**
 * What a route answers: its status, the schema that its body is cut to (a field that the schema does not name never
 * leaves the process), and the errors it refuses with. OpenAPI says the same.
 */
export function Answers(status: number, body: z.ZodType | null, ...errors: ErrorCode[]): MethodDecorator {
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of errors) {
    const { status: errorStatus } = ERROR_REGISTER[code];
    byStatus.set(errorStatus, [...(byStatus.get(errorStatus) ?? []), code]);
  }
  return applyDecorators(
    HttpCode(status),
    body ? ApiResponse({ status, standardSchema: body }) : ApiResponse({ status, description: 'Done; no body' }),
    ...(body ? [SerializeOptions({ schema: body })] : []),
    ...[...byStatus].map(([errorStatus, codes]) =>
      ApiResponse({
        status: errorStatus,
        description: codes.map((code) => `\`${code}\`: ${ERROR_REGISTER[code].title}`).join('  \n'),
        content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
      }),
    ),
  );
}
