import { Controller, Get } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';

import { Answers } from '../platform/http/answers.decorator.js';
import { AccountOnly } from '../platform/http/route-metadata.js';
import { CapacityView } from './capacity.js';
import { CapacityService } from './capacity.service.js';

@ApiTags('capacity')
@Controller('capacity')
export class CapacityController {
  constructor(private readonly capacity: CapacityService) {}

  @Get()
  @AccountOnly('capacity:read')
  @Answers(200, CapacityView)
  show(): Promise<CapacityView> {
    return this.capacity.show();
  }
}
