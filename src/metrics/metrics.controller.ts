import { Controller, Get, Res } from '@nestjs/common';
import { ApiExcludeController } from '@nestjs/swagger';
import { PrometheusController } from '@willsoto/nestjs-prometheus';
import type { FastifyReply } from 'fastify';

import { Public } from '../platform/http/route-metadata.js';
import { BoreServerTargets, type TargetGroup } from './bore-server-targets.js';

/** For Prometheus. Public as far as accounts go; who may ask is decided before (metrics-access.ts). */
@ApiExcludeController()
@Public()
@Controller('metrics')
export class MetricsController extends PrometheusController {
  constructor(private readonly targets: BoreServerTargets) {
    super();
  }

  @Get()
  override index(@Res({ passthrough: true }) reply: FastifyReply): Promise<string> {
    return super.index(reply);
  }

  /** Where the bore-servers' metrics are, for `http_sd_configs`. */
  @Get('bore-servers')
  boreServers(): Promise<TargetGroup[]> {
    return this.targets.list();
  }
}
