import type { OpenAPIObject } from '@nestjs/swagger';
import { z } from 'zod';

import { ERROR_REGISTER, type ErrorCode } from '../errors/error-register.js';
import { INTERNAL_PREFIX } from '../../protocol/plane-api.js';
import { ERROR_CODES_EXTENSION } from './answers.decorator.js';
import { Problem } from './problem.filter.js';

/** The parts of an operation that decide which errors it can answer with. */
const Operation = z.object({
  'x-access': z.looseObject({ kind: z.enum(['public', 'internal', 'user', 'admin']), scope: z.string().nullish() }),
  [ERROR_CODES_EXTENSION]: z.array(z.string()).default([]),
  parameters: z.array(z.object({ in: z.string(), name: z.string() })).default([]),
  requestBody: z.unknown().optional(),
});
type Operation = z.infer<typeof Operation>;

const METHODS = ['get', 'post', 'patch', 'put', 'delete'] as const;
const API_PREFIX = '/api/';

/**
 * Completes each operation of the document with every error that it can answer with: those its route names, and those of
 * every route of its kind. One response for each status, its schema narrowed to the codes that it may carry.
 * @throws Error when a route has no access metadata (route-metadata.ts): nobody has decided who may call it.
 */
export function documentErrors(document: OpenAPIObject): void {
  for (const [path, item] of Object.entries(document.paths)) {
    if (!path.startsWith(API_PREFIX)) continue;
    for (const method of METHODS) {
      const found = item[method];
      if (!found) continue;
      const operation = Operation.safeParse(found);
      if (!operation.success) throw new Error(`${method} ${path} does not say who may call it`);
      for (const [status, codes] of byStatus(errorsOf(path, operation.data))) {
        found.responses[String(status)] = errorResponse(status, codes);
      }
      Reflect.deleteProperty(found, ERROR_CODES_EXTENSION);
    }
  }
}

function errorsOf(path: string, operation: Operation): Set<string> {
  const { kind, scope } = operation['x-access'];
  const codes = new Set<string>(operation[ERROR_CODES_EXTENSION]);
  const add = (...more: ErrorCode[]) => more.forEach((code) => codes.add(code));
  // a URL that cannot be decoded, before anything else is looked at
  add('MALFORMED_REQUEST', 'REQUEST_TIMEOUT', 'INTERNAL_ERROR', 'UNAVAILABLE');
  if (operation.parameters.length > 0 || operation.requestBody) add('VALIDATION_FAILED');
  if (operation.requestBody) add('PAYLOAD_TOO_LARGE', 'UNSUPPORTED_MEDIA_TYPE');
  if (!path.startsWith(INTERNAL_PREFIX)) add('TOO_MANY_REQUESTS');
  const headers = operation.parameters.filter((parameter) => parameter.in === 'header').map(({ name }) => name);
  if (headers.includes('Idempotency-Key'))
    add('IDEMPOTENCY_KEY_IN_USE', 'IDEMPOTENCY_KEY_REUSED', 'IDEMPOTENCY_ANSWER_LOST');
  if (headers.includes('If-Match')) add('PRECONDITION_FAILED');
  if (kind === 'internal') add('INVALID_INTERNAL_KEY');
  if (kind === 'user' || kind === 'admin') add('UNAUTHENTICATED', scope === null ? 'LOGIN_REQUIRED' : 'SCOPE_MISSING');
  if (kind === 'admin') add('FORBIDDEN');
  return codes;
}

function byStatus(codes: ReadonlySet<string>): Map<number, ErrorCode[]> {
  const statuses = new Map<number, ErrorCode[]>();
  for (const code of Problem.shape.code.options) {
    const { status } = ERROR_REGISTER[code];
    if (codes.has(code)) statuses.set(status, [...(statuses.get(status) ?? []), code]);
  }
  return statuses;
}

function errorResponse(status: number, codes: readonly ErrorCode[]) {
  const example = (code: ErrorCode) => ({
    value: {
      type: `urn:bore-platform:error:${code}`,
      title: ERROR_REGISTER[code].title,
      status,
      code,
      detail: ERROR_REGISTER[code].title,
      instance: '/api/v1/…',
      requestId: '0199d3a0-7c3e-7cc1-b2a3-6f2f4e1d9c55',
    },
  });
  return {
    description: codes.map((code) => `\`${code}\`: ${ERROR_REGISTER[code].title}`).join('  \n'),
    content: {
      'application/problem+json': {
        schema: {
          allOf: [
            { $ref: '#/components/schemas/Problem' },
            { type: 'object', properties: { status: { enum: [status] }, code: { enum: [...codes] } } },
          ],
        },
        examples: Object.fromEntries(codes.map((code) => [code, example(code)])),
      },
    },
  };
}
