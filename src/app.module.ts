import { Module, StandardSchemaSerializerInterceptor } from '@nestjs/common';
import { APP_FILTER, APP_INTERCEPTOR, APP_PIPE } from '@nestjs/core';

import { AuditModule } from './audit/audit.module.js';
import { AuthModule } from './auth/auth.module.js';
import { CapacityModule } from './capacity/capacity.module.js';
import { EventsModule } from './events/events.module.js';
import { HealthModule } from './health/health.module.js';
import { JobsModule } from './jobs/jobs.module.js';
import { MetricsModule } from './metrics/metrics.module.js';
import { NotificationsModule } from './notifications/notifications.module.js';
import { ConfigModule } from './platform/config/config.module.js';
import { DatabaseModule } from './platform/database/database.module.js';
import { LifecycleModule } from './platform/http/lifecycle.js';
import { ProblemFilter } from './platform/http/problem.filter.js';
import { createValidationPipe } from './platform/http/validation.pipe.js';
import { IdempotencyModule } from './platform/idempotency/idempotency.module.js';
import { LoggingModule } from './platform/logging/logging.module.js';
import { RateLimitsModule, UserRateLimitsModule } from './platform/rate-limits/rate-limits.module.js';
import { RedisModule } from './platform/redis/redis.module.js';
import { ServersModule } from './servers/servers.module.js';
import { TunnelsModule } from './tunnels/tunnels.module.js';

@Module({
  imports: [
    ConfigModule,
    LoggingModule,
    LifecycleModule,
    DatabaseModule,
    IdempotencyModule,
    AuditModule,
    RedisModule,
    RateLimitsModule,
    EventsModule,
    AuthModule,
    UserRateLimitsModule,
    ServersModule,
    CapacityModule,
    TunnelsModule,
    NotificationsModule,
    JobsModule,
    MetricsModule,
    HealthModule,
  ],
  providers: [
    { provide: APP_FILTER, useClass: ProblemFilter },
    { provide: APP_PIPE, useFactory: createValidationPipe },
    { provide: APP_INTERCEPTOR, useClass: StandardSchemaSerializerInterceptor },
  ],
})
export class AppModule {}
