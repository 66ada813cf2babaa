import { Module } from '@nestjs/common';

import { ServersModule } from '../servers/servers.module.js';
import { CapacityController } from './capacity.controller.js';
import { CapacityRepository } from './capacity.repository.js';
import { CapacityService } from './capacity.service.js';
import { FleetController } from './fleet.controller.js';
import { FleetFiguresRepository } from './fleet-figures.repository.js';
import { FleetRepository } from './fleet.repository.js';
import { FleetService } from './fleet.service.js';
import { SlotReconciliation } from './slot-reconciliation.js';
import { SlotsRepository } from './slots.repository.js';

@Module({
  imports: [ServersModule],
  controllers: [CapacityController, FleetController],
  providers: [
    CapacityRepository,
    CapacityService,
    FleetFiguresRepository,
    FleetRepository,
    FleetService,
    SlotReconciliation,
    SlotsRepository,
  ],
  exports: [CapacityService, FleetFiguresRepository, SlotReconciliation],
})
export class CapacityModule {}
