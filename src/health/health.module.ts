import { Module } from '@nestjs/common';
import { TerminusModule } from '@nestjs/terminus';

import { CapacityModule } from '../capacity/capacity.module.js';
import { HealthController } from './health.controller.js';
import { LogLevelController } from './log-level.controller.js';
import { LogLevelRepository } from './log-level.repository.js';
import { StatusController } from './status.controller.js';
import { StatusRepository } from './status.repository.js';
import { StatusService } from './status.service.js';

/** How the system is, and how much it says of itself. */
@Module({
  imports: [TerminusModule.forRoot({ logger: false }), CapacityModule],
  controllers: [HealthController, LogLevelController, StatusController],
  providers: [LogLevelRepository, StatusRepository, StatusService],
})
export class HealthModule {}
