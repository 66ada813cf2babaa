/**
 * How many connections a backend takes, so that all of them together stay below what PostgreSQL allows:
 *
 *     (pool + others) × BACKEND_INSTANCES + reserve ≤ DB_MAX_CONNECTIONS
 */

/** The lock of the instance. */
const LOCK_CONNECTIONS = 1;
/**
 * Without Redis. BullMQ on PostgreSQL, for each of two queues: its pool for the queue and for the worker, two each, and one
 * more of each to LISTEN on; and the one that hears of events.
 */
const QUEUE_CONNECTIONS = 2 * 6;
const EVENT_CONNECTIONS = 1;
/** With replicas: the monitor's. */
const MONITOR_CONNECTIONS = 1;
/** Kept free: 3 that PostgreSQL keeps for superusers, and migrations, backups, monitoring and a person. */
const RESERVE = 10;
/** One Node process keeps no more busy; further ones would only make PostgreSQL switch between them. */
const POOL_SIZE_MAX = 10;
/** With one, whoever holds it in a transaction would keep health checks waiting. */
const POOL_SIZE_MIN = 2;

/** The settings that decide. */
export interface PoolSettings {
  readonly DB_MAX_CONNECTIONS: number;
  readonly BACKEND_INSTANCES: number;
  readonly DB_POOL_SIZE?: number | undefined;
  readonly DB_REPLICA_HOSTS: readonly unknown[];
  readonly REDIS_ENABLED: boolean;
}

/** What all backends may take together, with the reserve. */
export function connectionsOfAll(settings: PoolSettings & { readonly DB_POOL_SIZE: number }): number {
  return (settings.DB_POOL_SIZE + connectionsBesidePool(settings)) * settings.BACKEND_INSTANCES + RESERVE;
}

/** Connections of a process to the primary beside its pool. */
function connectionsBesidePool({
  DB_REPLICA_HOSTS,
  REDIS_ENABLED,
}: Pick<PoolSettings, 'DB_REPLICA_HOSTS' | 'REDIS_ENABLED'>): number {
  const withoutRedis = REDIS_ENABLED ? 0 : QUEUE_CONNECTIONS + EVENT_CONNECTIONS;
  return LOCK_CONNECTIONS + withoutRedis + (DB_REPLICA_HOSTS.length > 0 ? MONITOR_CONNECTIONS : 0);
}

/**
 * The pool's size: as set, or as many as there are for each instance.
 * @returns a sentence, naming the settings, when that is more than there is
 */
export function poolSizeOf(settings: PoolSettings): number | string {
  const { DB_MAX_CONNECTIONS: max, BACKEND_INSTANCES: instances } = settings;
  const beside = connectionsBesidePool(settings);
  const available = Math.floor((max - RESERVE) / instances) - beside;
  const size = settings.DB_POOL_SIZE ?? Math.max(POOL_SIZE_MIN, Math.min(available, POOL_SIZE_MAX));
  if (size <= available) return size;
  const needed = connectionsOfAll({ ...settings, DB_POOL_SIZE: size });
  return (
    `DB_MAX_CONNECTIONS (${max}) is too small: a DB_POOL_SIZE of ${size} and ${beside} more connections, times BACKEND_INSTANCES ` +
    `(${instances}), and a reserve of ${RESERVE} are ${needed}`
  );
}
