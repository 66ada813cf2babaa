import { z } from 'zod';

/** From good to bad; `unknown`: nobody could be asked yet. */
export const PartState = z.enum(['operational', 'degraded', 'partial_outage', 'major_outage', 'unknown']);
export type PartState = z.infer<typeof PartState>;

/** How the platform is, for a status page: nothing that tells how large it is or where its parts are. */
export const StatusView = z.object({
  status: PartState.exclude(['unknown']),
  components: z.object({
    api: PartState.describe('Accounts, lists, administration'),
    tunnels: PartState.describe('Opening tunnels. Those that are open do not need it'),
    dataPlane: PartState.describe('What carries open tunnels'),
    events: PartState.describe('Event streams'),
    jobs: PartState.describe('Ends what time has ended'),
  }),
  locations: z.array(z.object({ location: z.string(), state: PartState })),
  checkedAt: z.iso.datetime().nullable().describe('When all of it was known last; null: not yet'),
});
export type StatusView = z.infer<typeof StatusView>;

/** How the bore-servers of a location are. */
export interface LocationCount {
  readonly location: string;
  readonly servers: number;
  /** Of these, with a live lease. */
  readonly alive: number;
}

/** What one look at the store finds. */
export interface Sighting {
  readonly at: Date;
  readonly locations: readonly LocationCount[];
  /** Tunnels that can be opened now. */
  readonly free: number;
  /** Something that jobs should have ended long ago is still there. */
  readonly overdue: boolean;
}

/**
 * What can be said now.
 * @param sighting the last look at the store that came to something
 * @param answers whether the store has answered to the latest
 * @param redis of the process that answers; what goes on without it is slower
 */
export function viewStatus(
  sighting: Sighting | undefined,
  answers: boolean,
  redis: 'disabled' | 'up' | 'down',
): StatusView {
  const locations = (sighting?.locations ?? []).map(({ location, servers, alive }) => ({
    location,
    state: stateOf(servers, alive),
  }));
  const slowWithoutRedis = redis === 'down' ? 'degraded' : 'operational';
  const components = {
    api: answers ? 'operational' : 'degraded',
    tunnels: answers ? stateOfAdmission(sighting) : 'major_outage',
    // servers carry what they carry while nobody can be asked
    dataPlane: sighting ? stateOfAll(locations.map(({ state }) => state)) : 'unknown',
    events: answers ? slowWithoutRedis : 'degraded',
    jobs: answers && !sighting?.overdue ? slowWithoutRedis : 'degraded',
  } as const satisfies StatusView['components'];
  return {
    status: overall(components),
    components,
    locations,
    checkedAt: sighting?.at.toISOString() ?? null,
  };
}

/** Streams are what the platform is for: only without any of them is it all an outage. */
function overall(components: StatusView['components']): StatusView['status'] {
  const states = Object.values(components);
  if (components.dataPlane === 'major_outage') return 'major_outage';
  if (states.includes('major_outage') || states.includes('partial_outage')) return 'partial_outage';
  return states.includes('degraded') ? 'degraded' : 'operational';
}

function stateOf(servers: number, alive: number): PartState {
  if (alive === servers) return 'operational';
  if (alive === 0) return 'major_outage';
  return alive * 2 < servers ? 'partial_outage' : 'degraded';
}

/** A system without a server carries nothing. */
function stateOfAll(states: readonly PartState[]): PartState {
  if (states.every((state) => state === 'major_outage')) return 'major_outage';
  if (states.includes('major_outage') || states.includes('partial_outage')) return 'partial_outage';
  return states.includes('degraded') ? 'degraded' : 'operational';
}

function stateOfAdmission(sighting: Sighting | undefined): PartState {
  if (!sighting) return 'unknown';
  if (sighting.locations.every(({ alive }) => alive === 0)) return 'major_outage';
  return sighting.free > 0 ? 'operational' : 'partial_outage';
}
