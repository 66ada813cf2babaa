import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { NASTY_TEXTS, arbitraryOf } from '../harness/arbitrary-of-schema.js';
import { Api } from '../harness/api.js';
import { AnswerChecker, type Document, fetchOpenApi, type Operation, operationsOf } from '../harness/openapi.js';
import { ControlPlane } from './control-plane.js';
import { type CallerKind, FuzzWorld, LIVE } from './fuzz-world.js';

/** Tens of thousands: what one run sends, unless FUZZ_REQUESTS says otherwise. */
const REQUESTS = Number(process.env['FUZZ_REQUESTS'] ?? 20_000);
const LANES = 16;
/** Drawn anew each time; a failure prints it, and FUZZ_SEED repeats its requests. */
const SEED = Number(process.env['FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
/** Sent rarely: a password's hash takes 20 ms of CPU, and without a login nothing else is reached. */
const RARE = /auth\/(signup|login|password|logout|logout-all)$|auth\/sessions\/|admin\/users\/{id}$/;

let plane: ControlPlane;
let document: Document;

beforeAll(async () => {
  // what requests open stays open
  plane = await ControlPlane.start({ env: { PLAN_FREE_TUNNELS: '10000', MAX_TUNNELS_PER_SERVER: '10000' } });
  document = await fetchOpenApi(new Api(plane.url()));
});

afterAll(() => plane?.stop());

interface Request {
  readonly operation: Operation;
  readonly caller: CallerKind;
  readonly path: string;
  readonly body: string | undefined;
  readonly headers: Record<string, string>;
}

/** In a URL, whatever it holds: a lone surrogate too. */
const inUrl = (value: unknown) =>
  [...Buffer.from(typeof value === 'string' ? value : (JSON.stringify(value) ?? ''))]
    .map((byte) => `%${byte.toString(16).padStart(2, '0')}`)
    .join('');

/** As a part of a path: fetch itself would take out what is empty, `.` and `..`. */
const segment = (value: unknown) => {
  if (value === LIVE) return LIVE;
  return value === '' || value === '.' || value === '..' ? '%20' : inUrl(value);
};

const brokenBody = fc.constantFrom(
  '',
  '{',
  '[1,',
  '"',
  '\ud800',
  '{"a":1,"a":2}',
  '{"__proto__":{"role":"admin"}}',
  '{"constructor":{"prototype":{"x":1}}}',
  `${'['.repeat(20_000)}${']'.repeat(20_000)}`,
  `{"name":"${'x'.repeat(70_000)}"}`,
  '\uFEFF{}',
  'NaN',
);

/** Requests to one operation: most as documented, some not. */
function requestsTo(operation: Operation): fc.Arbitrary<Request> {
  const { schemas } = document.components;
  const value = (schema: unknown) => arbitraryOf(schema, schemas);
  const inPath = operation.parameters.filter((parameter) => parameter.in === 'path');
  const inHeader = operation.parameters.filter((parameter) => parameter.in === 'header');
  const inQuery = operation.parameters.filter((parameter) => parameter.in === 'query');
  const params = fc.tuple(
    ...inPath.map(({ schema }) =>
      fc.oneof(
        { weight: 3, arbitrary: fc.constant(LIVE) },
        { weight: 1, arbitrary: value(schema) },
        { weight: 1, arbitrary: fc.constantFrom(...NASTY_TEXTS) },
      ),
    ),
  );
  const query = fc.tuple(
    ...inQuery.map(({ name, schema }) =>
      // few at a time: among many, one that does not fit would spoil nearly every query
      fc
        .oneof(
          { weight: 4 * inQuery.length, arbitrary: fc.constant([]) },
          { weight: 8, arbitrary: fc.tuple(value(schema)) },
          { weight: 1, arbitrary: fc.tuple(value(schema), value(schema)) },
        )
        .map((values) => values.flat().map((each) => `${name}=${inUrl(each)}`)),
    ),
  );
  // in a header, text is what fetch lets through; keys come again, as those of repeated requests do
  const headerValue = fc.constantFrom(
    'again',
    'again and',
    '"1-0123456789abcdef"',
    'W/"1"',
    '*',
    '"',
    'x'.repeat(300),
    'ü',
  );
  const headers = fc.oneof(
    { weight: 2, arbitrary: fc.constant({}) },
    {
      weight: 1,
      arbitrary: fc.record(Object.fromEntries(inHeader.map(({ name }) => [name.toLowerCase(), headerValue]))),
    },
  );
  const schema = operation.requestBody?.content['application/json']?.schema;
  const json = value(schema).map((body) => JSON.stringify(body) ?? 'null');
  const body: fc.Arbitrary<string | undefined> =
    schema === undefined
      ? fc.constant(undefined)
      : fc.oneof({ weight: 12, arbitrary: json }, { weight: 1, arbitrary: brokenBody });
  const kind = operation['x-access']?.kind;
  const right = kind === 'internal' || kind === 'admin' ? kind : 'user';
  return fc
    .record({
      params,
      query,
      body,
      headers,
      type: fc.oneof(
        { weight: 30, arbitrary: fc.constant('application/json') },
        { weight: 1, arbitrary: fc.constantFrom('text/plain', 'application/xml', 'application/json; charset=utf-16') },
      ),
      caller: fc.oneof(
        { weight: 8, arbitrary: fc.constant<CallerKind>(right) },
        { weight: 1, arbitrary: fc.constantFrom<CallerKind[]>('nobody', 'user', 'internal') },
      ),
    })
    .map((drawn) => {
      let path = operation.path;
      inPath.forEach(({ name }, i) => (path = path.replace(`{${name}}`, segment(drawn.params[i]))));
      const pairs = drawn.query.flat();
      const contentType = drawn.body === undefined ? {} : { 'content-type': drawn.type };
      const { body: sent, caller } = drawn;
      return {
        operation,
        caller,
        body: sent,
        headers: { ...drawn.headers, ...contentType },
        path: pairs.length > 0 ? `${path}?${pairs.join('&')}` : path,
      };
    });
}

it(
  `${REQUESTS} requests made from the document, as it says and not: no answer but the documented ones`,
  { timeout: 1_200_000 },
  async () => {
    const server = await plane.newServer('fuzzed', 10_000, 1_000);
    // one more, which no request is about: there is always a server to place tunnels on
    const steady = await plane.newServer('steady', 20_000, 10_000);
    const world = new FuzzWorld(plane);
    const operations = operationsOf(document).filter(({ path }) => path.startsWith('/api/'));
    const draws = operations.flatMap((operation) => {
      const share = RARE.test(operation.path) ? 0.1 : 1;
      const count = Math.ceil((REQUESTS / operations.length) * share);
      return fc.sample(requestsTo(operation), { numRuns: count, seed: SEED });
    });
    // of all operations, mixed: each meets what the others have left
    const requests = draws
      .map((request, i) => ({ request, at: (i * 2_654_435_761) % 2 ** 32 }))
      .sort((a, b) => a.at - b.at)
      .map(({ request }) => request);
    const checker = new AnswerChecker(document);
    const complaints: string[] = [];
    const seen = new Map<number, number>();
    const loggedIn = { requests: 0, refused: 0 };
    const send = async ({ operation, caller, path: drawn, body, headers }: Request) => {
      const api = await world.caller(caller, operation);
      const path = await world.path(operation, drawn);
      const answer = await api.send(operation.method, path, body, headers);
      seen.set(answer.status, (seen.get(answer.status) ?? 0) + 1);
      const kind = operation['x-access']?.kind;
      if ((caller === 'user' || caller === 'admin') && (kind === 'user' || kind === 'admin')) {
        loggedIn.requests += 1;
        if (answer.status === 401) loggedIn.refused += 1;
        await world.learn(caller, api, operation, path, answer.status);
      }
      const complaint =
        answer.status === 500
          ? 'failed'
          : checker.complaint(operation, answer.status, answer.headers.get('content-type'), answer.body);
      if (complaint !== undefined)
        complaints.push(`${operation.name} as ${caller}: ${complaint}\n${path} ${body?.slice(0, 500)}`);
    };
    const lane = async () => {
      for (let request = requests.pop(); request && complaints.length < 10; request = requests.pop())
        await send(request);
    };
    // its lease must not end meanwhile, on however slow a machine
    const beats = setInterval(() => void steady.beat().catch(() => undefined), 60_000);
    await Promise.all(Array.from({ length: LANES }, lane)).finally(() => clearInterval(beats));
    expect(complaints, `FUZZ_SEED=${SEED}`).toEqual([]);
    // callers lost their logins now and then, and not for the rest of the run
    expect(loggedIn.refused).toBeLessThan(loggedIn.requests / 20);
    // it went deep: much was done, and not all of it refused
    expect(Object.fromEntries(seen)).toMatchObject({
      200: expect.any(Number),
      201: expect.any(Number),
      400: expect.any(Number),
    });
    expect((seen.get(200) ?? 0) + (seen.get(201) ?? 0) + (seen.get(204) ?? 0)).toBeGreaterThan(REQUESTS / 5);
    expect(plane.backends[0]?.output()).not.toContain('request failed');
    process.stdout.write(`fuzzed with FUZZ_SEED=${SEED}: ${JSON.stringify(Object.fromEntries(seen))}\n`);
    server.close();
    steady.close();
  },
);
