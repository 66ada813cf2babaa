import { BullModule } from '@nestjs/bullmq';
import { Module } from '@nestjs/common';

import { AuditModule } from '../audit/audit.module.js';
import { AuthModule } from '../auth/auth.module.js';
import { CapacityModule } from '../capacity/capacity.module.js';
import { EventsModule } from '../events/events.module.js';
import { QueueModule } from '../platform/queue/queue.module.js';
import { ServersModule } from '../servers/servers.module.js';
import { TunnelsModule } from '../tunnels/tunnels.module.js';
import { HOUSEKEEPING_QUEUE, HousekeepingProcessor } from './housekeeping.processor.js';

@Module({
  imports: [
    QueueModule,
    BullModule.registerQueue({ name: HOUSEKEEPING_QUEUE }),
    AuditModule,
    AuthModule,
    CapacityModule,
    EventsModule,
    ServersModule,
    TunnelsModule,
  ],
  providers: [HousekeepingProcessor],
})
export class JobsModule {}
