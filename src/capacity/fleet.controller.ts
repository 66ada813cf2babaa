import { Controller, Get } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';

import { Answers } from '../platform/http/answers.decorator.js';
import { AdminOnly } from '../platform/http/route-metadata.js';
import { AdminCapacityView, FleetView } from './fleet.js';
import { FleetService } from './fleet.service.js';

@ApiTags('admin')
@Controller('admin')
export class FleetController {
  constructor(private readonly fleet: FleetService) {}

  @Get('capacity')
  @AdminOnly('admin:read')
  @Answers(200, AdminCapacityView)
  showCapacity(): Promise<AdminCapacityView> {
    return this.fleet.showCapacity();
  }

  @Get('fleet')
  @AdminOnly('admin:read')
  @Answers(200, FleetView)
  showFleet(): Promise<FleetView> {
    return this.fleet.showFleet();
  }
}
