import { Global, Module } from '@nestjs/common';

import { EvictionPolicy } from './eviction-policy.js';
import { RedisConnection } from './redis-connection.js';

@Global()
@Module({ providers: [RedisConnection, EvictionPolicy], exports: [RedisConnection, EvictionPolicy] })
export class RedisModule {}
