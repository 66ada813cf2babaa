import { Controller, Get } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';

import { Answers } from '../platform/http/answers.decorator.js';
import { CapacityView } from './capacity.js';
import { CapacityService } from './capacity.service.js';

@ApiTags('capacity')
@ApiBearerAuth()
@Controller('capacity')
export class CapacityController {
  constructor(private readonly capacity: CapacityService) {}

  @Get()
  @Answers(200, CapacityView, 'UNAUTHENTICATED')
  show(): Promise<CapacityView> {
    return this.capacity.show();
  }
}
