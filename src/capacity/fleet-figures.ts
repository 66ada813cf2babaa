import { z } from 'zod';

/** Servers that have a series of their own in metrics: more than any fleet has. */
export const SERVERS_MEASURED_MAX = 1_000;
/** Locations likewise; the rest are added up as `other`. */
export const LOCATIONS_MEASURED_MAX = 100;

const Count = z.int();
const Load = z.object({ open: Count, capacity: Count });

/** How full the fleet was when it was measured. Unknown keys, of a later release, are left out. */
export const FleetFigures = z.object({
  tunnels: z.object({ pending: Count, active: Count, offline: Count }),
  servers: z.object({ online: Count, draining: Count, offline: Count, disabled: Count }),
  /** Open tunnels, and how many may be open at once, the reserved share included. */
  open: Count,
  total: Count,
  perServer: z.array(Load.extend({ id: z.string() })),
  perLocation: z.array(Load.extend({ location: z.string() })),
});
export type FleetFigures = z.infer<typeof FleetFigures>;
