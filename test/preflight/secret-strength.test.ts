import { createHash } from 'node:crypto';

import { describe, expect, it } from 'vitest';

import { secretBits } from '../../src/preflight/secret-strength.js';

/** As good as random, and the same in each run: one key in a million may look like less than it is. */
const drawn = (i: number): Buffer => createHash('sha256').update(String(i)).digest().subarray(0, 24);

describe('how hard a secret is to guess', () => {
  it.each(['hex', 'base64', 'base64url'] as const)('lets random %s pass, whatever it looks like', (encoding) => {
    const keys = Array.from({ length: 100_000 }, (_, i) => drawn(i).toString(encoding));
    expect(keys.filter((key) => secretBits(key) < 90)).toEqual([]);
  });

  it('lets a random password of 16 hex digits or 12 letters of both cases and digits pass as such', () => {
    expect(secretBits('9b7e40c2d81fa635')).toBeGreaterThanOrEqual(60);
    expect(secretBits('Vq7mXz2RkT9p')).toBeGreaterThanOrEqual(60);
  });

  it.each([
    ['one letter', 'x'.repeat(64)],
    ['two, in turn', 'ab'.repeat(32)],
    ['what counts up', '0123456789abcdef0123456789abcdef'],
    ['what counts down', 'zyxwvutsrqponmlkjihgfedcba9876543210'],
    ['one part, many times', 'k8Qz!vP2'.repeat(8)],
    ['words', 'my-super-secret-tunnel-key-for-production-1'],
    ['words with digits', 'tiger2-lemon4-river8'],
    ['words in pairs, with signs behind them', 'correctHorse!-batteryStaple20519'],
    ['that of our tests', 'internal-0123456789abcdef0123456789abcdef'],
    ['a placeholder', 'placeholder_placeholder_placeholder_2026'],
  ])('does not take %s for a key', (_, text) => {
    expect(secretBits(text)).toBeLessThan(90);
  });

  it.each([
    'password1234',
    'postgres',
    'bore_user_2026',
    'test-only',
    'redis-0123456789abcdef',
    'Admin-Welcome-1',
    'tiger2-lemon4',
    'acme2024-Berlin2024',
  ])('does not take %s for a password', (text) => {
    expect(secretBits(text)).toBeLessThan(60);
  });

  it('says nothing of nothing', () => {
    expect(secretBits('')).toBe(0);
  });
});
