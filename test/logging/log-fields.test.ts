/** What may stand in a line of the log, and that everything the code logs does. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import ts from 'typescript';
import { describe, expect, it } from 'vitest';

import { allowedFields, LOG_FIELDS } from '../../src/logging/log-fields.js';
import { scrub } from '../../src/logging/scrub.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const SECRET = 's3cr3t-0123456789';

class CarriesMuch extends Error {
  readonly command = { name: 'AUTH', args: [SECRET] };
  readonly headers = { authorization: SECRET };
  readonly code = 'E_MUCH';
}

describe('a line of the log', () => {
  it('has no field that is not on the list, wherever a secret is', () => {
    const line = allowedFields({
      status: 200,
      password: SECRET,
      headers: { authorization: SECRET },
      body: SECRET,
      url: `/x?token=${SECRET}`,
      __proto__polluted: SECRET,
      constructor: SECRET,
      deep: { deeper: [SECRET] },
    });
    expect(line).toEqual({ status: 200, dropped: 7 });
  });

  it('has no value that does not look as its name says', () => {
    const line = allowedFields({
      userId: { id: SECRET },
      status: SECRET,
      route: `/tunnels?token=${SECRET}`,
      method: 'GET /\n',
      clientAddress: SECRET,
      portRange: { min: SECRET, max: 1 },
      serverIds: [{ secret: SECRET }, 's1'],
      err: { password: SECRET },
      durationMs: Number.NaN,
    });
    expect(JSON.stringify(line)).not.toContain(SECRET);
    expect(line).toEqual({ serverIds: ['?', 's1'], err: { type: 'object', message: '' }, dropped: 7 });
  });

  it('has of an error its type, message, code, stack and causes, and nothing that it carries', () => {
    const { err } = allowedFields({ err: new CarriesMuch('refused', { cause: new CarriesMuch('no route') }) });
    expect(JSON.stringify(err)).not.toContain(SECRET);
    expect(err).toEqual({
      type: 'Error',
      message: 'refused',
      code: 'E_MUCH',
      stack: expect.stringContaining('log-fields.test'),
      cause: { type: 'Error', message: 'no route', code: 'E_MUCH' },
    });
  });

  it('ends, whatever it is given', () => {
    const loop: Error & { cause?: unknown } = new Error('x'.repeat(100_000));
    loop.cause = loop;
    const serverIds = Array.from({ length: 100_000 }, (_, i) => `s${i}`);
    const line = allowedFields({ err: loop, reason: 'y'.repeat(100_000), serverIds });
    expect(JSON.stringify(line).length).toBeLessThan(20_000);
  });

  it.each([
    ['a token of a tunnel', `tk_${'a'.repeat(43)}`],
    ['a refresh token', `rt_${'a'.repeat(43)}`],
    ['an API key', `bk_4fG7_${'a'.repeat(38)}`],
    ['a JSON Web Token', `eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.${'a'.repeat(43)}`],
    ['a password hash', '$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA'],
    ['a key in hex', '0f'.repeat(32)],
    ['a header', 'Bearer abcdefghijklmnop'],
    ['the login of a URL', 'bore:hunter2hunter2'],
  ])('does not show %s in its text', (_, secret) => {
    const text = `cannot reach postgres://${secret}@db:5432/x with ${secret}, nor\n${secret}`;
    const line = scrub(`${JSON.stringify({ msg: text, err: { message: text } })}\n`);
    const shown = secret === 'bore:hunter2hunter2' ? line.replaceAll(/(with |nor\\n)bore:hunter2hunter2/g, '') : line;
    expect(shown).not.toContain(secret);
    expect(JSON.parse(line).msg).toMatch(/^cannot reach postgres:\/\/\*\*\*@db:5432\/x/);
  });

  it('is one line of JSON without characters that no one sees, whatever its text', () => {
    const text = 'a\u009b31m\u007f\u202eb\u2028\ufeff\u{e0041}"\\\n\ud800é漢';
    const line = scrub(`${JSON.stringify({ msg: text })}\n`);
    expect(JSON.parse(line).msg).toBe(text);
    expect(line.trimEnd()).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}]/u);
    expect(line).toContain('é漢');
  });
});

const METHODS = new Set(['fatal', 'error', 'warn', 'info', 'debug', 'trace']);
/** What they log would pass by the list. */
const PAST_THE_LIST = new Set(['child', 'setBindings']);

/** Calls of a method of pino's that are in our sources, with the type of what they log. */
function* loggingCalls(): Generator<{ where: string; method: string; fields: ts.Type[]; checker: ts.TypeChecker }> {
  const file = ts.readConfigFile(path.join(ROOT, 'tsconfig.json'), (name) => ts.sys.readFile(name));
  const { options, fileNames } = ts.parseJsonConfigFileContent(file.config, ts.sys, ROOT);
  const program = ts.createProgram(fileNames, options);
  const checker = program.getTypeChecker();
  for (const source of program.getSourceFiles()) {
    const name = path.relative(ROOT, source.fileName);
    if (!name.startsWith('src/') || name.includes('/generated/')) continue;
    const calls: ts.CallExpression[] = [];
    const visit = (node: ts.Node): void => {
      if (ts.isCallExpression(node)) calls.push(node);
      ts.forEachChild(node, visit);
    };
    visit(source);
    for (const call of calls) {
      const [first] = call.arguments;
      const { expression } = call;
      const isAccess = ts.isPropertyAccessExpression(expression) || ts.isElementAccessExpression(expression);
      if (!first || !isAccess) continue;
      const method = ts.isPropertyAccessExpression(expression) ? expression.name.text : 'info';
      if (!METHODS.has(method) && !PAST_THE_LIST.has(method)) continue;
      // pino's Logger, by what only it has
      const { expression: logger } = expression;
      if (!checker.getTypeAtLocation(logger).getProperty('isLevelEnabled')) continue;
      const { line } = source.getLineAndCharacterOfPosition(call.getStart());
      const type = checker.getTypeAtLocation(first);
      yield { where: `${name}:${line + 1}`, method, fields: type.isUnion() ? type.types : [type], checker };
    }
  }
}

it('the list has none of the names that every line has', () => {
  for (const name of ['level', 'time', 'service', 'pid', 'msg', 'dropped']) expect(LOG_FIELDS.has(name)).toBe(false);
});

// the compiler reads all of it, which takes a minute where others compile too
describe('what the code logs', { timeout: 300_000 }, () => {
  it('is on the list, so that nobody’s field is lost', () => {
    const unknown: string[] = [];
    let found = 0;
    for (const { where, method, fields, checker } of loggingCalls()) {
      if (PAST_THE_LIST.has(method)) unknown.push(`${where}: ${method}() passes by the list`);
      const objects = fields.filter(({ flags }) => !(flags & ts.TypeFlags.StringLike) && !(flags & ts.TypeFlags.Null));
      if (objects.length === 0) continue;
      const names = objects.flatMap((type) => checker.getPropertiesOfType(type).map((property) => property.name));
      found++;
      if (names.length === 0) unknown.push(`${where}: what it logs has no type that tells its fields`);
      for (const name of names)
        if (!LOG_FIELDS.has(name)) unknown.push(`${where}: ${name} is not in src/logging/log-fields.ts`);
    }
    expect(unknown).toEqual([]);
    expect(found).toBeGreaterThan(50);
  });
});
