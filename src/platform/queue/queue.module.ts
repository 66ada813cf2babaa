import { BullModule } from '@nestjs/bullmq';
import { Module } from '@nestjs/common';
import { createPostgresBackend, setDefaultBackendFactory } from 'bullmq';

import { CONFIG, type Config } from '../config/config.js';
import { directConnectionOf } from '../database/database.js';

/** Enough for one queue and its worker; each keeps one more connection to LISTEN on. */
const POOL_SIZE = 2;

/**
 * BullMQ on its PostgreSQL backend, in the schema `bullmq` of our database. A message is a hint to look; the truth is
 * in the rows, so a lost or doubled one does no harm.
 */
@Module({
  imports: [
    BullModule.forRootAsync({
      inject: [CONFIG],
      useFactory: (config: Config) => {
        setDefaultBackendFactory(createPostgresBackend);
        return {
          connection: { ...directConnectionOf(config), max: POOL_SIZE, application_name: 'bore-queue', migrate: true },
          defaultJobOptions: { removeOnComplete: { count: 100 }, removeOnFail: { count: 500 } },
        };
      },
    }),
  ],
})
export class QueueModule {}
