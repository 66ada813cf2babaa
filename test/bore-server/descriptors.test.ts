import { pino } from 'pino';
import { describe, expect, it } from 'vitest';

import { withinDescriptors } from '../../src/bore-server/descriptors.js';
import { Limits } from '../../src/bore-server/limits.js';

const silent = pino({ level: 'silent' });

describe('limits within the descriptors of the process', () => {
  it.each([
    [256, 80, 0, 32],
    [1_024, 416, 0, 128],
    [20_000, 8_000, 0, 2_048],
    [1_000_000, 8_000, 0, 2_048],
    // with a peer port, which has handshakes of its own
    [1_024, 235, 117, 128],
    [20_000, 4_885, 2_442, 2_048],
    [1_000_000, 8_000, 4_000, 2_048],
  ])(
    '%i descriptors: %i visitors, %i passed on, %i handshakes',
    (descriptors, maxConnections, maxForwarded, maxHandshakes) => {
      const limits = { ...Limits.parse({}), ...(maxForwarded === 0 && { maxForwarded }) };
      const allowed = { maxConnections, maxForwarded, maxHandshakes };
      expect(withinDescriptors(limits, silent, descriptors)).toEqual({ ...limits, ...allowed });
      // two for each visitor and what is passed on, one for each handshake, and some are left
      const handshakes = maxForwarded > 0 ? 2 * maxHandshakes : maxHandshakes;
      expect(2 * (maxConnections + maxForwarded) + handshakes).toBeLessThan(descriptors);
    },
  );
});
