import { z } from 'zod';

/** What the fleet can carry and carries now. */
export const CapacityView = z.object({
  capacity: z
    .int()
    .describe(
      'Tunnels that may be open at once: what servers that take new ones can carry, the reserved share left out, and what is open on others',
    ),
  open: z.int().describe('Tunnels that are not closed'),
  free: z.int().describe('Tunnels that can be opened now'),
  locations: z.array(
    z.object({
      location: z.string(),
      servers: z.int().describe('bore-servers that take new tunnels'),
      free: z.int(),
    }),
  ),
});
export type CapacityView = z.infer<typeof CapacityView>;
