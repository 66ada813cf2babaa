import type { ClusterPart } from '../../src/local/cluster-part.js';
import type { ChaosBed } from './chaos-bed.js';

/** What may go wrong while a fault lasts, and for how long. */
interface Allowance {
  /** Longest time without an answer, in milliseconds, counted from the first request that failed. */
  readonly outageMs: number;
  /** Reads that may fail at all. */
  readonly reads: 'all answered' | 'may fail';
  /** Streams of visitors. */
  readonly streams: 'all whole' | 'may break';
}

export interface Fault {
  readonly name: string;
  readonly allowed: Allowance;
  /** Also in the short run. */
  readonly short?: boolean;
  /** How long it lasts; default: {@link HOLD_MS}. */
  readonly holdMs?: number;
  /** Why it cannot be done here, where it cannot. */
  missing?(bed: ChaosBed): string | undefined;
  /** Breaks something, for so long as the fault lasts. */
  inject(bed: ChaosBed): Promise<void>;
  /** Puts it right again; resolves when what was broken runs. */
  repair(bed: ChaosBed): Promise<void>;
}

/** For a test of one: injection, repair and the way back to health. */
export const FAULT_MS = 240_000;
/** How long what is broken stays so. */
export const HOLD_MS = 5_000;
/** What hangs must be given up by those who wait for it, and not just be waited for. */
const HANG_MS = 15_000;

/** One backend gone or hanging: nginx finds out and asks the others. */
const ONE_BACKEND: Allowance = { outageMs: 5_000, reads: 'may fail', streams: 'all whole' };
/** Redis is losable: nothing fails, things are only slower. */
export const REDIS: Allowance = { outageMs: 15_000, reads: 'all answered', streams: 'all whole' };
/** Without the primary there are no writes; as long as it is away, and until pools and breakers have found it again. */
const PRIMARY: Allowance = { outageMs: HOLD_MS + 15_000, reads: 'may fail', streams: 'all whole' };
/** A replica is left out when it does not answer. */
const REPLICA: Allowance = { outageMs: 5_000, reads: 'may fail', streams: 'all whole' };
/** The only way in. */
const DOOR: Allowance = { outageMs: HOLD_MS + 5_000, reads: 'may fail', streams: 'may break' };
const DATA_PLANE: Allowance = { outageMs: 5_000, reads: 'may fail', streams: 'may break' };

type Pick = (bed: ChaosBed) => readonly ClusterPart[];

/** kill -9, and started again. */
function killed(name: string, pick: Pick, allowed: Allowance, short = false): Fault {
  return {
    name: `${name}: kill -9`,
    allowed,
    short,
    inject: async (bed) => void (await Promise.all(pick(bed).map((part) => part.kill()))),
    repair: async (bed) => {
      for (const part of pick(bed)) await part.start();
    },
  };
}

/** Stopped in the middle of whatever it does, as on a machine that hangs; its connections stay. */
function paused(name: string, pick: Pick, allowed: Allowance, short = false): Fault {
  return {
    name: `${name}: hangs`,
    allowed,
    short,
    holdMs: HANG_MS,
    inject: async (bed) => {
      for (const part of pick(bed)) part.pause();
    },
    repair: async (bed) => {
      for (const part of pick(bed)) part.resume();
    },
  };
}

const backend =
  (number: 1 | 2 | 3): Pick =>
  ({ cluster }) =>
    cluster.backends.slice(number - 1, number);
const server =
  (number: 1 | 2 | 3): Pick =>
  ({ cluster }) =>
    cluster.servers.slice(number - 1, number);
const redis: Pick = ({ cluster }) => [cluster.redis];
const replica: Pick = ({ cluster }) => [cluster.replica];
const primary: Pick = ({ cluster }) => [cluster.primary];
const nginx: Pick = ({ cluster }) => [cluster.nginx];
const both =
  (...picks: Pick[]): Pick =>
  (bed) =>
    picks.flatMap((pick) => pick(bed));

export const FAULTS: readonly Fault[] = [
  killed('backend 1', backend(1), ONE_BACKEND, true),
  killed('backend 2', backend(2), ONE_BACKEND),
  killed('backend 3', backend(3), ONE_BACKEND),
  paused('backend 2', backend(2), ONE_BACKEND),
  killed('Redis', redis, REDIS, true),
  paused('Redis', redis, REDIS),
  killed('replica', replica, REPLICA),
  paused('replica', replica, REPLICA),
  killed('PostgreSQL primary', primary, PRIMARY, true),
  paused('PostgreSQL primary', primary, { ...PRIMARY, outageMs: HANG_MS + 15_000 }),
  {
    name: 'PostgreSQL primary: lost, replica promoted',
    allowed: { ...PRIMARY, outageMs: 30_000 },
    inject: async (bed) => {
      // what is acknowledged is on both: without that, the last moment before the loss would be gone
      await bed.query(`ALTER SYSTEM SET synchronous_standby_names = '*'`);
      await bed.query('SELECT pg_reload_conf()');
      await bed.replicaIsSynchronous();
      await bed.cluster.failOver();
    },
    repair: ({ cluster }) => cluster.replica.start(),
  },
  killed('nginx', nginx, DOOR),
  killed('bore-server s1', server(1), DATA_PLANE, true),
  paused('bore-server s2', server(2), DATA_PLANE),
  {
    name: 'bore-server s3: cut off from the backends',
    allowed: { outageMs: 5_000, reads: 'may fail', streams: 'all whole' },
    short: true,
    inject: async ({ link }) => link.set({ swallow: true }),
    repair: async ({ link }) => {
      link.heal();
      // what was swallowed is lost: its connections are dead
      link.cut();
    },
  },
  {
    name: 'connection pools: full, all wait for one lock',
    allowed: { outageMs: HOLD_MS + 10_000, reads: 'may fail', streams: 'all whole' },
    inject: (bed) => bed.holdTunnels(),
    repair: (bed) => bed.releaseTunnels(),
  },
  {
    name: 'backend 1: its clock jumps an hour ahead',
    allowed: ONE_BACKEND,
    missing: ({ clock }) => (clock ? undefined : 'there is no libfaketime (Debian package faketime)'),
    inject: (bed) => bed.moveClock(3_600),
    repair: (bed) => bed.moveClock(0),
  },
  killed('backends 1 and 2', both(backend(1), backend(2)), { ...ONE_BACKEND, outageMs: 10_000 }),
  killed('backend 3 and Redis', both(redis, backend(3)), { ...ONE_BACKEND, outageMs: 10_000 }),
  killed('replica and backend 1', both(replica, backend(1)), { ...ONE_BACKEND, outageMs: 10_000 }),
  killed('PostgreSQL primary and Redis', both(primary, redis), PRIMARY),
  killed('bore-server s1 and backend 2', both(backend(2), server(1)), { ...DATA_PLANE, outageMs: 10_000 }),
];
