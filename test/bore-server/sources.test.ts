import { describe, expect, it } from 'vitest';

import { SOURCES_MAX } from '../../src/bore-server/limits.js';
import { FailuresBySource, RateBySource, sourceOf } from '../../src/bore-server/sources.js';
import { VisitorPolicy } from '../../src/bore-server/visitor-policy.js';

describe('a source', () => {
  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:db8:1:2::6', '2001:db8:1:2::/64'],
    ['2001:db8::1', '2001:db8:0:0::/64'],
    ['::1', '0:0:0:0::/64'],
    ['fe80::1:2:3:4:5', 'fe80:0:0:1::/64'],
  ])('is the address, or the network of IPv6: %s', (address, source) => {
    expect(sourceOf(address)).toBe(source);
  });

  it('has a rate that refills, and holds a second’s worth', () => {
    const rate = new RateBySource(10);
    const taken = (now: number) => Array.from({ length: 100 }, () => rate.take('a', now)).filter(Boolean).length;
    expect(taken(0)).toBe(10);
    expect(taken(500)).toBe(5);
    expect(taken(60_000)).toBe(10);
    expect(rate.take('b', 60_000)).toBe(true);
  });

  it('that fails too often in a window is blocked for its time, and no longer', () => {
    const failures = new FailuresBySource(3, 1_000, 5_000);
    expect([failures.add('a', 0), failures.add('a', 10)]).toEqual([false, false]);
    expect(failures.isBlocked('a', 20)).toBe(false);
    // a window later the count begins anew
    expect([failures.add('a', 2_000), failures.add('a', 2_001), failures.add('a', 2_002)]).toEqual([
      false,
      false,
      true,
    ]);
    expect(failures.isBlocked('a', 7_001)).toBe(true);
    expect(failures.isBlocked('a', 7_003)).toBe(false);
    expect(failures.isBlocked('b', 2_003)).toBe(false);
    expect(new FailuresBySource(1, 1_000, 0).add('a', 0)).toBe(false);
  });

  it('is forgotten when too many are known, the oldest first', () => {
    const failures = new FailuresBySource(1, 1_000, 60_000);
    for (let i = 0; i <= SOURCES_MAX; i++) failures.add(`source ${i}`, 0);
    expect(failures.isBlocked('source 0', 1)).toBe(false);
    expect(failures.isBlocked('source 1', 1)).toBe(true);
  });
});

describe('a tunnel’s networks', () => {
  it.each([
    [[], [], '203.0.113.9', true],
    [['192.0.2.0/24'], [], '192.0.2.200', true],
    [['192.0.2.0/24'], [], '::ffff:192.0.2.200', true],
    [['192.0.2.0/24'], [], '192.0.3.1', false],
    [['192.0.2.0/24'], [], '2001:db8::1', false],
    [['192.0.2.0/24', '2001:db8::/32'], [], '2001:db8:ffff::1', true],
    [['192.0.2.0/24'], ['192.0.2.7/32'], '192.0.2.7', false],
    [['192.0.2.0/24'], ['192.0.2.7/32'], '192.0.2.8', true],
    [[], ['0.0.0.0/0'], '203.0.113.9', false],
    [[], ['0.0.0.0/0'], '2001:db8::1', true],
    [[], ['::/0'], '::ffff:203.0.113.9', true],
  ])('allow %j, deny %j: %s → %s', (allow, deny, address, expected) => {
    expect(new VisitorPolicy(allow, deny).allows(address)).toBe(expected);
  });
});
