import { Module } from '@nestjs/common';
import { PrometheusModule } from '@willsoto/nestjs-prometheus';

import { CapacityModule } from '../capacity/capacity.module.js';
import { EventsModule } from '../events/events.module.js';
import { ServersModule } from '../servers/servers.module.js';
import { TunnelsModule } from '../tunnels/tunnels.module.js';
import { EventMetrics, eventMetricProviders } from './event-metrics.js';
import { FleetMetrics, fleetMetricProviders } from './fleet-metrics.js';
import { httpMetricProviders } from './http-metrics.js';
import { MetricsController } from './metrics.controller.js';
import { reconciliationMetricProviders } from './reconciliation-metrics.js';
import { ReplicaMetrics, replicaMetricProviders } from './replica-metrics.js';

/** What the controller, which belongs to the Prometheus module, needs from ours. */
@Module({
  imports: [CapacityModule, EventsModule, ServersModule, TunnelsModule],
  providers: [
    ...eventMetricProviders,
    ...fleetMetricProviders,
    ...httpMetricProviders,
    ...reconciliationMetricProviders,
    ...replicaMetricProviders,
  ],
  exports: [EventMetrics, FleetMetrics, ReplicaMetrics],
})
class MetricSourcesModule {}

@Module({
  imports: [
    MetricSourcesModule,
    PrometheusModule.registerAsync({
      imports: [MetricSourcesModule],
      useFactory: () => ({}),
      controller: MetricsController,
    }),
  ],
})
export class MetricsModule {}
