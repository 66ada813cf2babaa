import { ownPort } from './own-ports.js';
import { OwnRedis, REDIS_PASSWORD } from './own-redis.js';
import { until } from './until.js';

/** Hash slots of a Redis Cluster, spread over its masters. */
const SLOTS = 16_384;
const MASTERS = 3;
/** Until nodes that are there hang together, or have noticed that one is gone. */
const CHANGE_MS = 30_000;

/** A node with its bus on a port that it is told, where the usual one would be among those of outgoing connections. */
interface Node {
  readonly redis: OwnRedis;
  readonly busPort: number;
  /** By which it is known in the cluster. */
  readonly id: string;
}

/** A Redis Cluster of a suite's own: three masters, each with a replica. All are real processes. */
export class OwnRedisCluster {
  private constructor(
    private readonly masters: readonly Node[],
    private readonly replicas: readonly Node[],
  ) {}

  static async start(): Promise<OwnRedisCluster> {
    const nodes = await Promise.all(Array.from({ length: 2 * MASTERS }, () => startNode()));
    const cluster = new OwnRedisCluster(nodes.slice(0, MASTERS), nodes.slice(MASTERS));
    const [first] = nodes;
    for (const { redis } of nodes.slice(1))
      await redis.ask((client) =>
        client.call('CLUSTER', 'MEET', '127.0.0.1', first?.redis.port ?? 0, first?.busPort ?? 0),
      );
    for (const [i, { redis }] of cluster.masters.entries()) {
      const [from, to] = [i, i + 1].map((n) => Math.floor((n * SLOTS) / MASTERS));
      await redis.ask((client) => client.call('CLUSTER', 'ADDSLOTSRANGE', from ?? 0, (to ?? 0) - 1));
    }
    for (const [i, { redis }] of cluster.replicas.entries()) {
      const { id = '' } = cluster.masters[i] ?? {};
      const knows = () => redis.ask(async (client) => String(await client.call('CLUSTER', 'NODES')).includes(id));
      await until(knows, 'a replica knows its master', CHANGE_MS);
      await redis.ask((client) => client.call('CLUSTER', 'REPLICATE', id));
    }
    await cluster.whole();
    return cluster;
  }

  /** What a backend needs to know. */
  get env(): NodeJS.ProcessEnv {
    const nodes = this.nodes.map(({ port }) => `127.0.0.1:${port}`).join(',');
    return { REDIS_ENABLED: 'true', REDIS_MODE: 'cluster', REDIS_NODES: nodes, REDIS_PASSWORD };
  }

  /** Masters first, as they were at the start. */
  get nodes(): readonly OwnRedis[] {
    return [...this.masters, ...this.replicas].map(({ redis }) => redis);
  }

  /** Kills one of the three masters as it was at the start, and its replica with it if so told. */
  async kill(number: 0 | 1 | 2, { withReplica = false } = {}): Promise<void> {
    await this.masters[number]?.redis.kill9();
    if (withReplica) await this.replicas[number]?.redis.kill9();
  }

  /** Starts those again that {@link kill} has killed. They are empty, and whoever has taken over stays what it is. */
  async startAgain(number: 0 | 1 | 2, { withReplica = false } = {}): Promise<void> {
    await this.masters[number]?.redis.startAgain();
    if (withReplica) await this.replicas[number]?.redis.startAgain();
  }

  /** Resolves when the replica of a killed master has taken its place. */
  async takenOver(number: 0 | 1 | 2): Promise<void> {
    const replica = this.replicas[number]?.redis;
    const isMaster = async () => replica !== undefined && (await roleOf(replica)) === 'master';
    await until(isMaster, 'the replica has taken over', CHANGE_MS);
    await this.isInState('ok');
  }

  /** Resolves when those that run have noticed that a part of the slots is with nobody. */
  broken(): Promise<void> {
    return this.isInState('fail');
  }

  /** Resolves when every node knows every other, every slot has a master, and every replica has what its master has. */
  async whole(): Promise<void> {
    await this.isInState('ok');
    for (const { redis } of this.replicas) {
      const isConnected = () =>
        redis.ask(async (client) => /master_link_status:up|role:master/.test(await client.info('replication')));
      await until(isConnected, 'a replica follows its master', CHANGE_MS);
    }
  }

  /** Fails when a master holds a secret in clear; a replica holds nothing else. */
  async stop(): Promise<void> {
    for (const redis of this.nodes) if (redis.isRunning && (await roleOf(redis)) !== 'master') await redis.kill9();
    await Promise.all(this.nodes.map((redis) => redis.stop()));
  }

  private async isInState(state: 'ok' | 'fail'): Promise<void> {
    for (const redis of this.nodes.filter((node) => node.isRunning)) {
      const info = () => redis.ask(async (client) => String(await client.call('CLUSTER', 'INFO')));
      const isSo = async () => {
        const text = await info();
        return text.includes(`cluster_state:${state}`) && text.includes(`cluster_known_nodes:${2 * MASTERS}`);
      };
      await until(isSo, `the cluster's state is ${state}`, CHANGE_MS);
    }
  }
}

async function roleOf(redis: OwnRedis): Promise<unknown> {
  return redis.ask(async (client) => (await client.role())[0]);
}

async function startNode(): Promise<Node> {
  const busPort = await ownPort();
  const settings = ['cluster-enabled yes', `cluster-port ${busPort}`, 'cluster-node-timeout 1000'];
  const redis = await OwnRedis.start({ settings });
  const id = String(await redis.ask((client) => client.call('CLUSTER', 'MYID')));
  return { redis, busPort, id };
}
