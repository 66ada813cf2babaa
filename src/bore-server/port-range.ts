import { z } from 'zod';

import { ListenPort } from '../protocol/plane-api.js';

/** Public ports, both inclusive. */
type Range = z.output<typeof PortRange>;

export const PortRange = z
  .string()
  .regex(/^\d{1,5}[:-]\d{1,5}$/, 'must look like 10000:20000')
  .transform((text) => {
    const [min, max] = text.split(/[:-]/).map(Number);
    return { min, max };
  })
  .pipe(z.object({ min: ListenPort, max: ListenPort }))
  .refine(({ min, max }) => min <= max, 'must not begin above its end');

/** A number, or a name that ends in one, as pods of a StatefulSet have it. */
export const Ordinal = z
  .string()
  .regex(/(?:^|\D)\d{1,5}$/, 'must be a number from 0, or a name that ends in one, such as bore-server-2')
  .transform((text) => Number(/\d+$/.exec(text)?.[0]));

/**
 * The ports of one of several servers that are configured alike: no two ordinals have one in common.
 * @param size ports of each; with `ordinal`, or neither: then the range is this server's alone
 * @returns a sentence when the range has no whole share left for this ordinal
 */
export function shareOf(range: Range, size?: number, ordinal?: number): Range | string {
  if (size === undefined && ordinal === undefined) return range;
  if (size === undefined || ordinal === undefined) return '--ports-per-server and --ordinal need each other';
  const min = range.min + ordinal * size;
  const max = min + size - 1;
  if (max <= range.max) return { min, max };
  const shares = Math.floor((range.max - range.min + 1) / size);
  return `--port-range ${range.min}:${range.max} has ${size} ports for ${shares} servers, not for one of ordinal ${ordinal}`;
}
