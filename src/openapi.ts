import type { INestApplication } from '@nestjs/common';
import { DocumentBuilder, SwaggerModule, type OpenAPIObject } from '@nestjs/swagger';
import { z } from 'zod';

import { Problem } from './platform/http/problem.filter.js';
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
  return document;
}

/** Serves the description at `/api/openapi.json` and a page to read it at `/api/docs`. */
export function serveOpenApi(app: INestApplication): void {
  SwaggerModule.setup('api/docs', app, () => createOpenApi(app), {
    jsonDocumentUrl: 'api/openapi.json',
    yamlDocumentUrl: 'api/openapi.yaml',
  });
}
