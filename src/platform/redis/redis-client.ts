import { Cluster, Redis, type RedisOptions } from 'ioredis';

import type { Config } from '../config/config.js';

/**
 * Redis answers within a millisecond. Whoever waits for it is a request that can do without, but not for a process that
 * has had no CPU for a moment.
 */
const COMMAND_TIMEOUT_MS = 1_000;
/**
 * Silence with a command under way: the connection is dead, though nobody said so. Longer than a command may take, so
 * that one slow command does not end the connection; short, because until then every request waits for its command.
 */
const SOCKET_TIMEOUT_MS = 1_500;
const CONNECT_TIMEOUT_MS = 2_000;
/** From the first attempt to connect again to those of a long outage, which are what a returned Redis waits for. */
const RECONNECT_MS_MIN = 50;
const RECONNECT_MS_MAX = 2_000;
/**
 * In a cluster, a command follows so many redirections; they last less than COMMAND_TIMEOUT_MS. During a fail-over
 * requests do without, rather than wait for its end.
 */
const REDIRECTIONS_MAX = 4;
const REDIRECTION_DELAY_MS = 50;
/**
 * Of jobs, which wait for Redis: longer than a worker waits for its next job in one command (10 s). A command that went
 * astray in a fail-over fails then, and is tried again, instead of holding its worker up for ever.
 */
const JOBS_TIMEOUT_MS = 15_000;
/** Of jobs: together longer than a cluster takes to replace a lost master (its `cluster-node-timeout`, 15 s by default). */
const JOBS_REDIRECTIONS_MAX = 60;
const JOBS_REDIRECTION_DELAY_MS = 500;

/** What speaks to Redis, in any of its modes. */
export type RedisClient = Redis | Cluster;

/** Every client of this process that has not ended: those of the features, of the queue and of its workers. */
const clients = new Set<RedisClient>();

/** How many connections to Redis (of a cluster: to all its nodes together) this process has, and how many of them it can use. */
export function countRedisConnections(): { readonly ready: number; readonly other: number } {
  const ready = [...clients].filter(({ status }) => status === 'ready').length;
  return { ready, other: clients.size - ready };
}

function remembered(client: RedisClient): RedisClient {
  clients.add(client);
  // one that has ended may be told to connect again
  return client.on('connect', () => clients.add(client)).on('end', () => clients.delete(client));
}

/** Makes a client that connects at once, for ever again, and queues nothing while it is not connected. */
export function createRedisClient(config: Config): RedisClient {
  const client = createClient(
    config,
    {
      connectionName: 'bore-backend',
      commandTimeout: COMMAND_TIMEOUT_MS,
      socketTimeout: SOCKET_TIMEOUT_MS,
      enableOfflineQueue: false,
      // a command that was under way when the connection broke may have been carried out: never send it twice
      maxRetriesPerRequest: 0,
      autoResendUnfulfilledCommands: false,
    },
    REDIRECTIONS_MAX,
    REDIRECTION_DELAY_MS,
  );
  return remembered(client);
}

/**
 * Makes a client whose commands wait for as long as Redis is away: BullMQ asks for that, and no request waits for it.
 * @param goOn whether to connect again when an attempt has failed; if not, commands that wait fail
 */
export function createQueueClient(config: Config, goOn: () => boolean): RedisClient {
  const client = createClient(
    config,
    {
      connectionName: 'bore-queue',
      commandTimeout: JOBS_TIMEOUT_MS,
      socketTimeout: JOBS_TIMEOUT_MS,
      enableOfflineQueue: true,
      maxRetriesPerRequest: null,
    },
    JOBS_REDIRECTIONS_MAX,
    JOBS_REDIRECTION_DELAY_MS,
    (attempt) => (goOn() ? backOff(attempt) : null),
  );
  if (client instanceof Cluster) endConnects(client);
  return remembered(client);
}

/**
 * Makes every `connect()` end. ioredis 6.0.0 forgets its promise when the cluster that it has reached is down: it connects again by
 * itself, and whoever waits (BullMQ's worker, which then takes no job any more) would wait for ever.
 */
function endConnects(client: Cluster): void {
  const connect = client.connect.bind(client);
  client.connect = () =>
    new Promise((resolve, reject) => {
      const onReady = (): void => resolve();
      const onEnd = (): void => reject(new Error('Connection is closed.'));
      client.once('ready', onReady).once('end', onEnd);
      connect()
        .finally(() => client.off('ready', onReady).off('end', onEnd))
        .then(resolve, reject);
    });
}

type UseOption =
  | 'connectionName'
  | 'commandTimeout'
  | 'socketTimeout'
  | 'enableOfflineQueue'
  | 'maxRetriesPerRequest'
  | 'autoResendUnfulfilledCommands';

function createClient(
  config: Config,
  use: Pick<RedisOptions, UseOption> & { enableOfflineQueue: boolean },
  maxRedirections: number,
  redirectionDelay: number,
  retryStrategy: (attempt: number) => number | null = backOff,
): RedisClient {
  const options = {
    ...(config.REDIS_USERNAME !== undefined && { username: config.REDIS_USERNAME }),
    ...(config.REDIS_PASSWORD && { password: config.REDIS_PASSWORD.reveal() }),
    ...(config.REDIS_TLS && { tls: {} }),
    connectTimeout: CONNECT_TIMEOUT_MS,
    retryStrategy,
    // a master that has become a replica: the connection belongs to the new master
    reconnectOnError: ({ message }: Error) => message.startsWith('READONLY'),
    ...use,
  } satisfies RedisOptions;
  switch (config.REDIS_MODE) {
    case 'standalone':
      return new Redis({ ...options, host: config.REDIS_HOST, port: config.REDIS_PORT });
    case 'sentinel':
      return new Redis({
        ...options,
        sentinels: config.REDIS_NODES,
        name: config.REDIS_SENTINEL_NAME,
        sentinelRetryStrategy: retryStrategy,
        ...(config.REDIS_SENTINEL_PASSWORD && { sentinelPassword: config.REDIS_SENTINEL_PASSWORD.reveal() }),
        enableTLSForSentinelMode: config.REDIS_TLS,
      });
    case 'cluster':
      return new Cluster(config.REDIS_NODES, {
        redisOptions: options,
        enableOfflineQueue: use.enableOfflineQueue,
        clusterRetryStrategy: retryStrategy,
        maxRedirections,
        retryDelayOnFailover: redirectionDelay,
        retryDelayOnClusterDown: redirectionDelay,
        retryDelayOnTryAgain: redirectionDelay,
      });
  }
}

/** Half at random, so that all backends do not come back to a Redis that has just started in the same moment. */
function backOff(attempt: number): number {
  const delay = Math.min(RECONNECT_MS_MAX, RECONNECT_MS_MIN * 2 ** Math.min(attempt, 10));
  return delay / 2 + (Math.random() * delay) / 2;
}
