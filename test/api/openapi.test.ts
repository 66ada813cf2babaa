import { afterAll, beforeAll, expect, it } from 'vitest';

import { Api } from '../harness/api.js';
import { type Backend, startBackend } from '../harness/backend.js';
import { createDatabase, type TestDatabase } from '../harness/database.js';
import { AnswerChecker, type Document, fetchOpenApi, operationsOf } from '../harness/openapi.js';

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
  await expect(`${JSON.stringify(document, null, 2)}\n`).toMatchFileSnapshot('../../openapi.json');
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

it('is served as a page to read, too', async () => {
  expect((await api.get('/api/docs')).status).toBe(200);
  expect((await api.get('/api/openapi.yaml')).status).toBe(200);
});
