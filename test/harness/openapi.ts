import { readFileSync } from 'node:fs';

import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { z } from 'zod';

import type { Api } from './api.js';

const Access = z.object({ kind: z.enum(['public', 'internal', 'user', 'admin']), scope: z.string().nullish() });
const Parameter = z.object({
  name: z.string(),
  in: z.enum(['path', 'query', 'header']),
  required: z.boolean().default(false),
  schema: z.unknown(),
});
const Content = z.record(
  z.string(),
  z.object({ schema: z.unknown(), examples: z.record(z.string(), z.object({ value: z.unknown() })).default({}) }),
);
const OperationObject = z.object({
  'x-access': Access.optional(),
  parameters: z.array(Parameter).default([]),
  requestBody: z.object({ content: Content }).optional(),
  responses: z.record(z.string(), z.object({ content: Content.optional() })),
});
const Document = z.looseObject({
  openapi: z.string(),
  paths: z.record(z.string(), z.record(z.string(), OperationObject)),
  components: z.looseObject({ schemas: z.record(z.string(), z.unknown()) }),
});
export type Document = z.infer<typeof Document>;

/** One operation of the document. */
export interface Operation extends z.infer<typeof OperationObject> {
  /** Such as `GET /api/v1/tunnels/{id}`. */
  readonly name: string;
  readonly method: string;
  readonly path: string;
}

/** The document that a backend serves, as it is. */
export async function fetchOpenApiText(api: Api): Promise<string> {
  return (await api.get('/api/openapi.json')).text;
}

/** The parts of it that tests look at. */
export async function fetchOpenApi(api: Api): Promise<Document> {
  return Document.parse(JSON.parse(await fetchOpenApiText(api)));
}

/** The document that is committed. */
export function committedOpenApi(): Document {
  return Document.parse(JSON.parse(readFileSync(new URL('../../openapi.json', import.meta.url), 'utf8')));
}

export function operationsOf(document: Document): Operation[] {
  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({
      ...operation,
      name: `${method.toUpperCase()} ${path}`,
      method: method.toUpperCase(),
      path,
    })),
  );
}

/** Checks answers against what the document says of them. */
export class AnswerChecker {
  private readonly ajv = new Ajv2020({ strict: false, allErrors: false });
  private readonly checks = new Map<string, ValidateFunction>();

  constructor(document: Document) {
    addFormats.default(this.ajv);
    this.ajv.addSchema(document, 'openapi');
  }

  /** What is wrong with an answer to `operation`; undefined when nothing is. */
  complaint(operation: Operation, status: number, contentType: string | null, body: unknown): string | undefined {
    const response = operation.responses[String(status)];
    if (!response) return `status ${status} is not documented: ${JSON.stringify(body)}`;
    const [type] = Object.keys(response.content ?? {});
    if (type === undefined) return body === null ? undefined : `has a body where none is documented`;
    if (!contentType?.startsWith(type)) return `is ${contentType} and not ${type}`;
    const check = this.check(operation, status, type);
    return check(body) ? undefined : `${this.ajv.errorsText(check.errors)} in ${JSON.stringify(body)?.slice(0, 500)}`;
  }

  /** Why a value does not fit a schema of the document's components; undefined when it does. */
  misfit(schema: string, value: unknown): string | undefined {
    const check = this.ajv.compile({ $ref: `openapi#/components/schemas/${schema}` });
    return check(value) ? undefined : this.ajv.errorsText(check.errors);
  }

  private check(operation: Operation, status: number, type: string): ValidateFunction {
    const place = [
      'paths',
      operation.path,
      operation.method.toLowerCase(),
      'responses',
      String(status),
      'content',
      type,
    ];
    const pointer = place.map((part) => encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1'))).join('/');
    const known = this.checks.get(pointer);
    const check = known ?? this.ajv.compile({ $ref: `openapi#/${pointer}/schema` });
    this.checks.set(pointer, check);
    return check;
  }
}
