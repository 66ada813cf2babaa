import { BullModule } from '@nestjs/bullmq';
import { Module } from '@nestjs/common';
import { createPostgresBackend, setDefaultBackendFactory } from 'bullmq';

import { CONFIG, type Config } from '../config/config.js';
import { directConnectionOf } from '../database/database.js';
import { QueueClients } from './queue-clients.js';
import { QueueWatch } from './queue-watch.js';

/** Enough for one queue and its worker; each keeps one more connection to LISTEN on. */
const POOL_SIZE = 2;

/** Begins as all our keys do; the hash tag keeps a queue's keys on one node of a cluster, as its scripts need. */
const REDIS_PREFIX = 'bore:{queue}';

const DEFAULT_JOB_OPTIONS = { removeOnComplete: { count: 100 }, removeOnFail: { count: 500 } };

@Module({ providers: [QueueClients], exports: [QueueClients] })
class QueueClientsModule {}

/**
 * BullMQ: on Redis where there is one, else on its PostgreSQL backend, in the schema `bullmq` of our database. A message
 * is a hint to look; the truth is in the rows, so a lost or doubled one does no harm, nor does a Redis that lost them all.
 */
@Module({
  imports: [
    QueueClientsModule,
    BullModule.forRootAsync({
      imports: [QueueClientsModule],
      inject: [CONFIG, QueueClients],
      useFactory: (config: Config, clients: QueueClients) => {
        if (config.REDIS_ENABLED) {
          setDefaultBackendFactory();
          clients.provide(config);
          return { connection: {}, prefix: REDIS_PREFIX, defaultJobOptions: DEFAULT_JOB_OPTIONS };
        }
        setDefaultBackendFactory(createPostgresBackend);
        return {
          connection: { ...directConnectionOf(config), max: POOL_SIZE, application_name: 'bore-queue', migrate: true },
          defaultJobOptions: DEFAULT_JOB_OPTIONS,
        };
      },
    }),
  ],
  providers: [QueueWatch],
  exports: [QueueClientsModule, QueueWatch],
})
export class QueueModule {}
