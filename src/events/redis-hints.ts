import type { Config } from '../platform/config/config.js';
import { createRedisClient, type RedisClient } from '../platform/redis/redis-client.js';
import type { RedisConnection } from '../platform/redis/redis-connection.js';
import type { Hints } from './event-signal.js';

/** What backends publish to, and subscribe to. Messages are empty: what happened stands in the outbox. */
const CHANNEL = 'bore:events';
/** What is announced closer together goes as one message: of one backend, a hundred a second at most. */
const GATHER_MS = 10;

/**
 * Redis pub/sub: whoever may have made a change says so to all. A subscriber needs a connection of its own. While Redis is away
 * nothing is announced, and readers poll.
 */
export class RedisHints implements Hints {
  private readonly subscriber: RedisClient;
  private gathering: NodeJS.Timeout | undefined;

  constructor(
    config: Config,
    private readonly redis: RedisConnection,
    private readonly onHint: () => void,
  ) {
    this.subscriber = createRedisClient(config);
    this.subscriber.on('ready', () => void this.subscribe());
    this.subscriber.on('message', onHint);
    // the process's other connection to the same Redis tells of it (RedisConnection)
    this.subscriber.on('error', () => undefined);
  }

  announce(): void {
    this.gathering ??= setTimeout(() => {
      this.gathering = undefined;
      void this.redis.attempt((client) => client.publish(CHANNEL, ''));
      // also when Redis is away: at least streams of this backend have it at once
      this.onHint();
    }, GATHER_MS).unref();
  }

  stop(): void {
    clearTimeout(this.gathering);
    this.subscriber.disconnect();
  }

  private async subscribe(): Promise<void> {
    try {
      await this.subscriber.subscribe(CHANNEL);
      // what was announced while nobody listened
      this.onHint();
    } catch {
      // the connection broke again; `ready` follows when it is back
    }
  }
}
