import fc from 'fast-check';
import { expect, it } from 'vitest';

import { Ordinal, PortRange, shareOf } from '../../src/bore-server/port-range.js';

it('servers that share a range have no port in common, none outside, and as many as they should', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 65_535 }),
      fc.integer({ min: 1, max: 2_000 }),
      fc.integer({ min: 1, max: 200 }),
      (min, length, size) => {
        const range = { min, max: Math.min(65_535, min + length - 1) };
        const taken = new Set<number>();
        const shares = Math.floor((range.max - range.min + 1) / size);
        for (let ordinal = 0; ordinal < shares; ordinal++) {
          const share = shareOf(range, size, ordinal);
          if (typeof share === 'string') throw new Error(share);
          for (let port = share.min; port <= share.max; port++) {
            if (port < range.min || port > range.max || taken.has(port)) throw new Error(`${port} twice, or outside`);
            taken.add(port);
          }
        }
        expect(taken.size).toBe(shares * size);
        // no part of a share
        expect(shareOf(range, size, shares)).toMatch(/not for one of ordinal \d+$/);
      },
    ),
    { numRuns: 200 },
  );
});

it('a range that is not shared is the server’s own', () => {
  expect(shareOf({ min: 10, max: 20 })).toEqual({ min: 10, max: 20 });
  expect(shareOf({ min: 10, max: 20 }, 5)).toBe('--ports-per-server and --ordinal need each other');
  expect(shareOf({ min: 10, max: 20 }, undefined, 0)).toBe('--ports-per-server and --ordinal need each other');
});

it.each([
  ['0', 0],
  ['12', 12],
  ['bore-server-3', 3],
  ['bore-2-server-10', 10],
  ['s007', 7],
])('an ordinal is a number, or what a name ends in: %s', (text, ordinal) => {
  expect(Ordinal.parse(text)).toBe(ordinal);
});

it.each(['', 'bore-server', '1x', '-', 'bore-server-123456', '1.'])('and nothing else: %s', (text) => {
  expect(Ordinal.safeParse(text).success).toBe(false);
});

it.each(['10000:9999', '0:10', '1:65536', '1', 'a:b', '1:2:3'])('a range that is none is refused: %s', (text) => {
  expect(PortRange.safeParse(text).success).toBe(false);
});
