/** A part of `npm run chaos`: the cluster on a Redis Cluster, which loses a master. */
import { afterAll, beforeAll, beforeEach, it } from 'vitest';

import { clusterUnavailable } from '../harness/own-cluster.js';
import { OwnRedisCluster } from '../harness/own-redis-cluster.js';
import { ChaosBed, START_MS } from './chaos-bed.js';
import { ChaosRun } from './chaos-run.js';
import { FAULT_MS, REDIS } from './faults.js';

const isLong = process.env['CHAOS'] === 'long';
const missing = isLong
  ? await clusterUnavailable()
  : 'npm run chaos has it; the loss of a master is in api/redis-modes';

let redis: OwnRedisCluster;
let bed: ChaosBed;
let run: ChaosRun;

beforeAll(async () => {
  if (missing !== undefined) return;
  redis = await OwnRedisCluster.start();
  bed = await ChaosBed.start('127.49.0.1', { backendEnv: redis.env });
  run = new ChaosRun(bed);
}, START_MS);

beforeEach(({ skip }) => {
  if (missing !== undefined) skip(missing);
});

afterAll(async () => {
  await bed?.stop();
  await redis?.stop();
  await run?.report('chaos-redis-cluster.md');
}, START_MS);

it('withstands the loss of a master', { timeout: FAULT_MS }, async (context) => {
  const fault = {
    name: 'Redis Cluster, a master: kill -9, its replica takes over',
    allowed: REDIS,
    inject: async () => {
      await redis.kill(0);
      await redis.takenOver(0);
    },
    repair: async () => {
      await redis.startAgain(0);
      await redis.whole();
    },
  };
  await run.withstand(fault, context);
});
