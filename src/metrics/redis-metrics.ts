import { Injectable } from '@nestjs/common';

import { countRedisConnections } from '../platform/redis/redis-client.js';
import { RedisConnection } from '../platform/redis/redis-connection.js';
import { scrapeGauge } from './scrape-gauge.js';

/** This backend's connections to Redis. Without REDIS_ENABLED there is nothing to show. */
@Injectable()
export class RedisMetrics {
  constructor(redis: RedisConnection) {
    scrapeGauge({ name: 'bore_redis_up', help: '1: this backend has a connection to Redis that answers' }, (gauge) => {
      if (redis.state !== 'disabled') gauge.set(Number(redis.state === 'up'));
    });
    scrapeGauge(
      { name: 'bore_redis_connections', help: 'Its connections, those of the queue too', labelNames: ['state'] },
      (gauge) => {
        if (redis.state === 'disabled') return;
        const { ready, other } = countRedisConnections();
        gauge.set({ state: 'ready' }, ready);
        gauge.set({ state: 'other' }, other);
      },
    );
  }
}
