import { type BeforeApplicationShutdown, Injectable } from '@nestjs/common';
import { createIORedisClient, RedisConnection as QueueConnection } from 'bullmq';

import type { Config } from '../config/config.js';
import { createQueueClient, type RedisClient } from '../redis/redis-client.js';

/** For goodbyes and the commands under way; shorter than what stopping may take in all. */
const GOODBYE_MS = 3_000;

/** BullMQ's connections to Redis, which it opens and closes itself; this makes them, and ends them when nobody answers. */
@Injectable()
export class QueueClients implements BeforeApplicationShutdown {
  private readonly clients: RedisClient[] = [];
  private stopping = false;

  /** From now on, BullMQ's connections go where `config` says. Three for each queue: its own, and two of its worker. */
  provide(config: Config): void {
    QueueConnection.clientFactory = () => {
      const client = createQueueClient(config, () => !this.stopping);
      // before BullMQ listens, which writes the error to the console while nobody listens to itself: its command may be AUTH
      client.on('error', (error: Error) => Reflect.deleteProperty(error, 'command'));
      this.clients.push(client);
      return createIORedisClient(client);
    };
  }

  /** Queues are on Redis: closing a worker in BullMQ's patient way would wait for answers that may never come. */
  get inUse(): boolean {
    return this.clients.length > 0;
  }

  /**
   * BullMQ says goodbye to Redis, and waits for the answer: of one that is away it comes when the next attempt to connect
   * fails and is the last, of one that is silent when its time is over.
   */
  beforeApplicationShutdown(): void {
    this.stopping = true;
    for (const client of this.clients) {
      if (client.status === 'ready') setTimeout(() => client.disconnect(), GOODBYE_MS).unref();
    }
  }
}
