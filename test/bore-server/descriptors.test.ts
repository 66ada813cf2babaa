import { pino } from 'pino';
import { describe, expect, it } from 'vitest';

import { withinDescriptors } from '../../src/bore-server/descriptors.js';
import { Limits } from '../../src/bore-server/limits.js';

const silent = pino({ level: 'silent' });

describe('limits within the descriptors of the process', () => {
  it.each([
    [256, 80, 32],
    [1_024, 416, 128],
    [20_000, 8_000, 2_048],
    [1_000_000, 8_000, 2_048],
  ])('%i descriptors: %i visitors, %i handshakes', (descriptors, maxConnections, maxHandshakes) => {
    const limits = Limits.parse({});
    expect(withinDescriptors(limits, silent, descriptors)).toEqual({ ...limits, maxConnections, maxHandshakes });
    // two for each visitor, one for each handshake, and some are left
    expect(2 * maxConnections + maxHandshakes).toBeLessThan(descriptors);
  });
});
