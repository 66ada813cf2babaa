import { BullModule } from '@nestjs/bullmq';
import { Module } from '@nestjs/common';

import { QueueModule } from '../platform/queue/queue.module.js';
import { ServersModule } from '../servers/servers.module.js';
import { TunnelsModule } from '../tunnels/tunnels.module.js';
import { HOUSEKEEPING_QUEUE, HousekeepingProcessor } from './housekeeping.processor.js';

@Module({
  imports: [QueueModule, BullModule.registerQueue({ name: HOUSEKEEPING_QUEUE }), ServersModule, TunnelsModule],
  providers: [HousekeepingProcessor],
})
export class JobsModule {}
