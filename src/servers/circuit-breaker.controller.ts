import { Body, Controller, Get, Post } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';

import { Answers } from '../platform/http/answers.decorator.js';
import { AdminOnly } from '../platform/http/route-metadata.js';
import { BreakerStatsView, ResetBreakersAnswer, ResetBreakersRequest } from './breaker.js';
import { BreakerViewsRepository } from './breaker-views.repository.js';

@ApiTags('admin')
@Controller('admin/circuit-breaker')
export class CircuitBreakerController {
  constructor(private readonly views: BreakerViewsRepository) {}

  @Get('stats')
  @AdminOnly('admin:read')
  @Answers(200, BreakerStatsView)
  async stats(): Promise<BreakerStatsView> {
    const [backends, breakers] = await Promise.all([this.views.backends(), this.views.list()]);
    return { backends, breakers };
  }

  @Post('reset')
  @AdminOnly('admin:write')
  @Answers(200, ResetBreakersAnswer)
  async reset(
    @Body({ schema: ResetBreakersRequest }) { serverId }: ResetBreakersRequest,
  ): Promise<ResetBreakersAnswer> {
    return { reset: await this.views.requestReset(serverId) };
  }
}
