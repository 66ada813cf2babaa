import { Module } from '@nestjs/common';
import { PrometheusModule } from '@willsoto/nestjs-prometheus';

import { AuthModule } from '../auth/auth.module.js';
import { CapacityModule } from '../capacity/capacity.module.js';
import { EventsModule } from '../events/events.module.js';
import { NotificationsModule } from '../notifications/notifications.module.js';
import { QueueModule } from '../platform/queue/queue.module.js';
import { ServersModule } from '../servers/servers.module.js';
import { TunnelsModule } from '../tunnels/tunnels.module.js';
import { BoreServerTargets } from './bore-server-targets.js';
import { BreakerMetrics } from './breaker-metrics.js';
import { BuildMetrics } from './build-metrics.js';
import { callerMetricProviders } from './caller-metrics.js';
import { databaseMetricProviders } from './database-metrics.js';
import { EventMetrics } from './event-metrics.js';
import { FleetMetrics } from './fleet-metrics.js';
import { FleetWatch } from './fleet-watch.js';
import { httpMetricProviders } from './http-metrics.js';
import { MetricsController } from './metrics.controller.js';
import { MetricsListener } from './metrics-listener.js';
import { notificationMetricProviders } from './notification-metrics.js';
import { queueMetricProviders } from './queue-metrics.js';
import { reconciliationMetricProviders } from './reconciliation-metrics.js';
import { RedisMetrics } from './redis-metrics.js';
import { tunnelMetricProviders } from './tunnel-metrics.js';

/** What is measured, and what the controller, which belongs to the Prometheus module, needs from ours. */
@Module({
  imports: [AuthModule, CapacityModule, EventsModule, NotificationsModule, QueueModule, ServersModule, TunnelsModule],
  providers: [
    ...callerMetricProviders,
    ...databaseMetricProviders,
    ...httpMetricProviders,
    ...notificationMetricProviders,
    ...queueMetricProviders,
    ...reconciliationMetricProviders,
    ...tunnelMetricProviders,
    BoreServerTargets,
    BreakerMetrics,
    BuildMetrics,
    EventMetrics,
    FleetMetrics,
    FleetWatch,
    MetricsListener,
    RedisMetrics,
  ],
  exports: [BoreServerTargets],
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
