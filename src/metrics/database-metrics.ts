import { Injectable } from '@nestjs/common';
import { InjectMetric, makeHistogramProvider } from '@willsoto/nestjs-prometheus';
import type { Gauge, Histogram } from 'prom-client';

import { Database } from '../platform/database/database.js';
import { POOL_NAMES, type PoolFigures } from '../platform/database/observed-pool.js';
import { type GaugeName, scrapeGauge } from './scrape-gauge.js';

const WAIT = 'bore_database_pool_wait_seconds';

/** This backend's connections to the database, and which of its replicas it reads from. */
@Injectable()
export class DatabaseMetrics {
  constructor(@InjectMetric(WAIT) wait: Histogram, database: Database) {
    database.poolWaits.on('waited', (pool, seconds) => wait.observe({ pool }, seconds));

    /** The pools of replicas count together. */
    const show = (
      name: GaugeName,
      read: (gauge: Gauge, pool: string, sum: (of: (p: PoolFigures) => number) => number) => void,
    ) =>
      scrapeGauge(name, (gauge) => {
        for (const name of POOL_NAMES) {
          const pools = database.pools().filter((pool) => pool.name === name);
          if (pools.length > 0) read(gauge, name, (of) => pools.reduce((total, pool) => total + of(pool), 0));
        }
      });
    show(
      {
        name: 'bore_database_pool_connections',
        help: 'Connections of this backend’s pools',
        labelNames: ['pool', 'state'],
      },
      (gauge, pool, sum) => {
        gauge.set(
          { pool, state: 'used' },
          sum(({ used }) => used),
        );
        gauge.set(
          { pool, state: 'idle' },
          sum(({ idle }) => idle),
        );
      },
    );
    show(
      { name: 'bore_database_pool_waiting', help: 'Callers that wait for a connection now', labelNames: ['pool'] },
      (gauge, pool, sum) =>
        gauge.set(
          { pool },
          sum(({ waiting }) => waiting),
        ),
    );
    show(
      { name: 'bore_database_pool_max', help: 'Connections that a pool may have', labelNames: ['pool'] },
      (gauge, pool, sum) =>
        gauge.set(
          { pool },
          sum(({ max }) => max),
        ),
    );
    // without any there is nothing to show
    scrapeGauge(
      {
        name: 'bore_database_replicas',
        help: 'Read replicas of the database, as this backend sees them',
        labelNames: ['state'],
      },
      (gauge) => {
        if (!database.hasReplicas) return;
        const { inUse, leftOut } = database.countReplicas();
        gauge.set({ state: 'in_use' }, inUse);
        gauge.set({ state: 'left_out' }, leftOut);
      },
    );
  }
}

export const databaseMetricProviders = [
  makeHistogramProvider({
    name: WAIT,
    help: 'How long a caller has waited for a connection of a pool, also in vain',
    labelNames: ['pool'],
    // at once, or a connection to be opened; 5 s is when waiting ends
    buckets: [0.001, 0.005, 0.025, 0.1, 0.3, 1, 2.5, 5],
  }),
  DatabaseMetrics,
];
