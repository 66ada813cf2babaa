import type { Config } from '../platform/config/config.js';
import { NOEVICTION, policiesOf } from '../platform/redis/eviction-policy.js';
import { createRedisClient, type RedisClient } from '../platform/redis/redis-client.js';
import { type Check, fail, type Finding, type Group, listed, notChecked, pass } from './finding.js';

/** More than one attempt to connect takes (redis-client.ts). */
const READY_TIMEOUT_MS = 5_000;

/** @param redis a client that is ready, why there is none, or `undefined`: Redis is off */
export function redisChecks(redis: RedisClient | Error | undefined): Group {
  const on = (run: (client: RedisClient) => Promise<Finding>, down: (reason: string) => Finding): Check['run'] => {
    if (redis === undefined) return () => notChecked('Redis is off');
    return redis instanceof Error ? () => down(redis.message) : () => run(redis);
  };
  return {
    name: 'Redis',
    checks: [
      {
        id: 'redis',
        title: 'Redis answers',
        run: on(answers, (reason) => fail(reason, 'check REDIS_*, its password and the firewall')),
      },
      { id: 'redis-policy', title: 'Redis forgets nothing', run: on(policy, () => notChecked('Redis is not reached')) },
    ],
  };
}

/** A client that is ready, or why not. Whoever gets one disconnects it. */
export function connectRedis(config: Config): Promise<RedisClient | Error> {
  const client = createRedisClient(config);
  let reason = `no answer in ${READY_TIMEOUT_MS / 1000} s`;
  // of an error only the message: it carries the command, and that may be AUTH
  client.on('error', (error: Error) => (reason = error.message));
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      client.disconnect();
      resolve(new Error(reason));
    }, READY_TIMEOUT_MS);
    client.once('ready', () => {
      clearTimeout(timer);
      resolve(client);
    });
  });
}

async function answers(client: RedisClient): Promise<Finding> {
  return pass(`PING: ${await client.ping()}`);
}

async function policy(client: RedisClient): Promise<Finding> {
  const policies = await policiesOf(client);
  if (policies.length === 0) return notChecked('it does not say its maxmemory-policy');
  const wrong = policies.filter((name) => name !== NOEVICTION);
  if (wrong.length === 0) return pass(`maxmemory-policy ${NOEVICTION}`);
  return fail(
    `maxmemory-policy is ${listed([...new Set(wrong)])}: a full Redis forgets limits and jobs`,
    'set maxmemory-policy noeviction in redis.conf, on every node',
  );
}
