import type { INestApplication } from '@nestjs/common';
import { DocumentBuilder, SwaggerModule, type OpenAPIObject } from '@nestjs/swagger';
import { z } from 'zod';

import './openapi-health-examples.js';
import './openapi-notification-examples.js';
import { EXAMPLES } from './openapi-examples.js';
import { documentErrors } from './platform/http/error-responses.js';
import { Problem } from './platform/http/problem.filter.js';
import { DOCS_PATH } from './platform/http/security-headers.js';
import { INTERNAL_KEY_HEADER } from './protocol/plane-api.js';

/** The API's own description, made from the code. */
export function createOpenApi(app: INestApplication): OpenAPIObject {
  const document = SwaggerModule.createDocument(
    app,
    new DocumentBuilder()
      .setTitle('bore-platform')
      .setDescription('TCP tunnels as a service, for unmodified bore clients')
      .setVersion('1')
      .setOpenAPIVersion('3.1.0')
      .addBearerAuth({ type: 'http', scheme: 'bearer', bearerFormat: 'JWT', description: 'Access token of a login' })
      .addSecurity('apiKey', {
        type: 'http',
        scheme: 'bearer',
        description: 'API key (`bk_…`) that holds the scope named',
      })
      .addApiKey({ type: 'apiKey', in: 'header', name: INTERNAL_KEY_HEADER }, 'internalKey')
      .build(),
  );
  const { $schema: _, ...problem } = z.toJSONSchema(Problem);
  // JSON Schema 2020-12 is what OpenAPI 3.1 takes, and Nest's types are of 3.0
  // oxlint-disable-next-line typescript/consistent-type-assertions
  const schema = problem as never;
  document.components = {
    ...document.components,
    schemas: { ...document.components?.schemas, Problem: schema },
  };
  for (const [id, shape] of Object.entries(document.components.schemas ?? {})) {
    if (EXAMPLES.has(id)) Object.assign(shape, { examples: [EXAMPLES.get(id)] });
  }
  documentErrors(document);
  dropSafeIntegerBounds(document);
  return document;
}

/** What Zod writes of every integer: that it fits a JavaScript number. Readers take it for a limit of ours. */
function dropSafeIntegerBounds(node: unknown): void {
  if (typeof node !== 'object' || node === null) return;
  if ('minimum' in node && node.minimum === Number.MIN_SAFE_INTEGER) delete node.minimum;
  if ('maximum' in node && node.maximum === Number.MAX_SAFE_INTEGER) delete node.maximum;
  for (const child of Object.values(node)) dropSafeIntegerBounds(child);
}

/** Serves the description at `/api/openapi.json` and a page to read it at `/api/docs`. */
export function serveOpenApi(app: INestApplication): void {
  SwaggerModule.setup(DOCS_PATH, app, () => createOpenApi(app), {
    jsonDocumentUrl: 'api/openapi.json',
    yamlDocumentUrl: 'api/openapi.yaml',
  });
}
