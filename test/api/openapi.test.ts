import { afterAll, beforeAll, expect, it } from 'vitest';
import { z } from 'zod';

import { Api } from '../harness/api.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { AnswerChecker, type Document, fetchOpenApi, fetchOpenApiText, operationsOf } from '../harness/openapi.js';

/** A schema with what it refers to in its place. */
function resolve(schema: unknown): unknown {
  const named = z.object({ $ref: z.string() }).safeParse(schema);
  return named.success ? document.components.schemas[named.data.$ref.replace('#/components/schemas/', '')] : schema;
}

/** Not for programs that call the API: pages to read it, and what Prometheus reads. */
const UNDOCUMENTED = /^GET \/(metrics|api\/docs|api\/openapi\.(json|yaml))/;

let database: TestDatabase;
let backend: Backend;
let api: Api;
let document: Document;

beforeAll(async () => {
  database = await createDatabase();
  // Nest names each route that it serves at this level
  backend = await startBackend({ database, env: { LOG_LEVEL: 'debug' } });
  api = new Api(backend.url);
  document = await fetchOpenApi(api);
});

afterAll(async () => {
  await backend?.stop();
  await database?.drop();
});

it('openapi.json is what the code says: npx vitest run test/api/openapi.test.ts --update writes it', async () => {
  const text = JSON.stringify(JSON.parse(await fetchOpenApiText(api)), null, 2);
  await expect(`${text}\n`).toMatchFileSnapshot('../../openapi.json');
});

it('describes every route that answers, and no other (OWASP API9)', () => {
  const live = [...backend.output().matchAll(/Mapped \{(\S+), (\w+)\} route/g)].map(
    ([, path = '', method]) => `${method} ${path.replaceAll(/:(\w+)/g, '{$1}')}`,
  );
  expect(live.length).toBeGreaterThan(20);
  const documented = operationsOf(document).map(({ name }) => name);
  expect(documented.sort()).toEqual(live.filter((route) => !UNDOCUMENTED.test(route)).sort());
});

it('says of every operation who may call it, by which scheme, and what every error is', () => {
  const schemes = document.components['securitySchemes'];
  expect(Object.keys(Object(schemes)).sort()).toEqual(['apiKey', 'bearer', 'internalKey']);
  for (const { name, path, responses, requestBody, ...operation } of operationsOf(document)) {
    expect(operation['x-access'], name).toBeDefined();
    const statuses = Object.keys(responses).map(Number);
    expect(
      statuses.some((status) => status < 300),
      name,
    ).toBe(true);
    if (!path.startsWith('/api/')) continue;
    expect(statuses, name).toEqual(expect.arrayContaining([400, 500, 503]));
    // what is not documented is refused, at every level that we name (OWASP API3, ASVS 15.3.3)
    // bore-servers and backends of neighbouring releases may say more to each other
    const own = path.includes('/internal/') ? undefined : requestBody;
    const body = JSON.stringify(resolve(own?.content['application/json']?.schema ?? {}));
    expect(body.split('"properties"').length, name).toBeLessThanOrEqual(
      body.split('"additionalProperties":false').length,
    );
    if (requestBody) expect(statuses, name).toEqual(expect.arrayContaining([413, 415]));
    if (operation['x-access']?.kind !== 'public') expect(statuses, name).toContain(401);
    for (const [status, { content }] of Object.entries(responses)) {
      if (Number(status) >= 400) expect(Object.keys(content ?? {}), name).toEqual(['application/problem+json']);
    }
  }
});

it('gives examples that fit their own schemas, and can be compiled whole', () => {
  const checker = new AnswerChecker(document);
  let examples = 0;
  for (const operation of operationsOf(document)) {
    for (const [status, { content }] of Object.entries(operation.responses)) {
      for (const [type, media] of Object.entries(content ?? {})) {
        for (const { value } of Object.values(media.examples)) {
          examples++;
          expect(checker.complaint(operation, Number(status), type, value)).toBeUndefined();
        }
      }
    }
  }
  expect(examples).toBeGreaterThan(100);
});

it('shows what every body of an account’s and an administrator’s routes looks like', () => {
  const { schemas } = document.components;
  const seen = new Set<string>();
  const collect = (node: unknown): void => {
    if (typeof node !== 'object' || node === null) return;
    if ('$ref' in node && typeof node.$ref === 'string') seen.add(node.$ref.replace('#/components/schemas/', ''));
    for (const child of Object.values(node)) collect(child);
  };
  for (const { name, path, requestBody, responses } of operationsOf(document)) {
    // between our own programs, or a stream of lines
    if (!path.startsWith('/api/') || /internal|evidence/.test(path)) continue;
    const answered = Object.entries(responses).flatMap(([status, { content }]) =>
      Number(status) < 300 ? [content] : [],
    );
    for (const content of [requestBody?.content, ...answered]) {
      const schema = content?.['application/json']?.schema;
      if (schema === undefined) continue;
      const before = seen.size;
      collect(schema);
      const isNamed = seen.size > before || JSON.stringify(schema).includes('$ref');
      expect(isNamed, `${name}: a body without a name and an example (src/openapi-examples.ts)`).toBe(true);
    }
  }
  const checker = new AnswerChecker(document);
  for (const name of seen) {
    const { examples } = z.looseObject({ examples: z.array(z.unknown()).default([]) }).parse(schemas[name]);
    expect(examples, name).toHaveLength(1);
    expect(checker.misfit(name, examples[0]), name).toBeUndefined();
  }
  expect(seen.size).toBeGreaterThan(30);
});

it('is served as a page to read, too', async () => {
  expect((await api.get('/api/docs')).status).toBe(200);
  expect((await api.get('/api/openapi.yaml')).status).toBe(200);
});
