import { Injectable } from '@nestjs/common';
import { InjectMetric, makeGaugeProvider } from '@willsoto/nestjs-prometheus';
import type { Gauge } from 'prom-client';

import { Database } from '../platform/database/database.js';

const REPLICAS = 'bore_database_replicas';

/** Which of the database's replicas this backend reads from. Without any there is nothing to show. */
@Injectable()
export class ReplicaMetrics {
  constructor(
    @InjectMetric(REPLICAS) private readonly replicas: Gauge,
    private readonly database: Database,
  ) {}

  refresh(): void {
    if (!this.database.hasReplicas) return;
    const { inUse, leftOut } = this.database.countReplicas();
    this.replicas.set({ state: 'in_use' }, inUse);
    this.replicas.set({ state: 'left_out' }, leftOut);
  }
}

export const replicaMetricProviders = [
  makeGaugeProvider({
    name: REPLICAS,
    help: 'Read replicas of the database, as this backend sees them',
    labelNames: ['state'],
  }),
  ReplicaMetrics,
];
