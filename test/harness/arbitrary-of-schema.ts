import fc from 'fast-check';
import { z } from 'zod';

/** The keywords of JSON Schema that our document uses. */
const Schema = z.looseObject({
  $ref: z.string().optional(),
  type: z.union([z.string(), z.array(z.string())]).optional(),
  enum: z.array(z.unknown()).optional(),
  anyOf: z.array(z.unknown()).optional(),
  oneOf: z.array(z.unknown()).optional(),
  properties: z.record(z.string(), z.unknown()).optional(),
  required: z.array(z.string()).default([]),
  additionalProperties: z.unknown().optional(),
  items: z.unknown().optional(),
  maxItems: z.number().optional(),
  minLength: z.number().default(0),
  maxLength: z.number().default(100),
  pattern: z.string().optional(),
  format: z.string().optional(),
  minimum: z.number().optional(),
  maximum: z.number().optional(),
});
type Schema = z.infer<typeof Schema>;

/** What has broken parsers, databases and logs elsewhere. */
export const NASTY_TEXTS = [
  '',
  ' ',
  '\0',
  'a\0b',
  '\ud800',
  '\u202Eevil',
  '\u200B',
  'İstanbul',
  'ﬀ',
  '__proto__',
  'constructor',
  'null',
  '%00',
  '%',
  '../../etc/passwd',
  "' OR 1=1 --",
  '$1',
  '${jndi:ldap://127.0.0.1/a}',
  'a\r\nset-cookie: x=y',
  '{"level":50}\n{"level":60}',
  '\u001B[31mred',
  '٣',
  '1e9',
  '9'.repeat(40),
  'x'.repeat(5_000),
];

const anyJson = fc.oneof(
  fc.constantFrom<unknown>(...NASTY_TEXTS),
  fc.constantFrom<unknown>(null, true, 0, -0, -1, 1e308, 2 ** 31, 2 ** 53, 0.1, [], {}, [[]], { __proto__: null }),
  fc.jsonValue({ maxDepth: 2 }),
);

/** Values that mostly fit a schema of `components`, and now and then, anywhere in them, do not. */
export function arbitraryOf(schema: unknown, components: Readonly<Record<string, unknown>>): fc.Arbitrary<unknown> {
  const parsed = Schema.parse(schema ?? {});
  return fc.oneof({ weight: 20, arbitrary: fitting(parsed, components) }, { weight: 1, arbitrary: anyJson });
}

function fitting(schema: Schema, components: Readonly<Record<string, unknown>>): fc.Arbitrary<unknown> {
  const child = (of: unknown) => arbitraryOf(of, components);
  if (schema.$ref !== undefined) return child(components[schema.$ref.replace('#/components/schemas/', '')]);
  if (schema.enum) return fc.constantFrom(...schema.enum);
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return fc.oneof(...choices.map(child));
  if (Array.isArray(schema.type))
    return fc.oneof(...schema.type.map((type) => fitting({ ...schema, type }, components)));
  switch (schema.type) {
    case 'null':
      return fc.constant(null);
    case 'boolean':
      return fc.boolean();
    case 'integer':
    case 'number':
      return integer(schema);
    case 'string':
      return text(schema);
    case 'array':
      return fc.array(child(schema.items), { maxLength: Math.min(schema.maxItems ?? 5, 5) });
    case 'object':
      return object(schema, child);
    default:
      return anyJson;
  }
}

function integer({ minimum = -(2 ** 53), maximum = 2 ** 53 }: Schema): fc.Arbitrary<number> {
  const [min, max] = [Math.ceil(minimum), Math.floor(maximum)];
  const small = fc.integer({ min: Math.max(min, -10), max: Math.min(max, Math.max(min, 0) + 100) });
  return fc.oneof(
    { weight: 8, arbitrary: small },
    { weight: 4, arbitrary: fc.constantFrom(min, max) },
    { weight: 1, arbitrary: fc.constantFrom(min - 1, max + 1, 0.5) },
  );
}

function text({ pattern, format, minLength, maxLength }: Schema): fc.Arbitrary<string> {
  if (format === 'uuid') return fc.uuid();
  if (format === 'email') return fc.emailAddress();
  if (format === 'cidrv4') return fc.tuple(fc.ipV4(), fc.nat(32)).map((parts) => parts.join('/'));
  if (format === 'cidrv6') return fc.tuple(fc.ipV6(), fc.nat(128)).map((parts) => parts.join('/'));
  if (format === 'date-time') return fc.date({ noInvalidDate: true }).map((date) => date.toISOString());
  if (pattern !== undefined && !pattern.includes('\\p{')) return fc.stringMatching(new RegExp(pattern));
  const plain = fc.string({ minLength, maxLength: Math.min(Math.max(minLength, maxLength), minLength + 40) });
  return fc.oneof(plain, fc.string({ minLength, maxLength: minLength + 10, unit: 'binary' }));
}

function object(schema: Schema, child: (of: unknown) => fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
  const properties = schema.properties ?? {};
  const arbitraries = Object.fromEntries(Object.entries(properties).map(([key, of]) => [key, child(of)]));
  const requiredKeys = schema.required.filter((key) => key in properties);
  const optionalKeys = Object.keys(properties).filter((key) => !requiredKeys.includes(key));
  // few at a time: among many, one that does not fit would spoil nearly every object
  const known = fc
    .subarray(optionalKeys, { maxLength: Math.min(optionalKeys.length, 3) })
    .chain((keys) =>
      fc.record(Object.fromEntries([...requiredKeys, ...keys].map((key) => [key, arbitraries[key] ?? anyJson]))),
    );
  if (typeof schema.additionalProperties === 'object') {
    const plain = fc.stringMatching(/^[a-z]{1,12}$/);
    const names = fc.oneof({ weight: 20, arbitrary: plain }, { weight: 1, arbitrary: fc.string({ maxLength: 12 }) });
    return fc.dictionary(names, child(schema.additionalProperties), { maxKeys: 5 });
  }
  const strange = fc.dictionary(fc.constantFrom('role', 'id', 'userId', '__proto__', 'plan', 'x'), anyJson, {
    maxKeys: 2,
  });
  return fc.oneof(
    { weight: 20, arbitrary: known },
    { weight: 1, arbitrary: fc.tuple(known, strange).map(([one, other]) => ({ ...one, ...other })) },
    { weight: 1, arbitrary: fc.tuple(known, fc.nat()).map(([one, n]) => withoutOne(one, n)) },
  );
}

function withoutOne(from: object, n: number): object {
  const keys = Object.keys(from);
  return Object.fromEntries(Object.entries(from).filter(([key]) => key !== keys[n % Math.max(keys.length, 1)]));
}
