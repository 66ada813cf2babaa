import { Controller, Get, Res } from '@nestjs/common';
import { ApiExcludeController } from '@nestjs/swagger';
import { PrometheusController } from '@willsoto/nestjs-prometheus';
import type { FastifyReply } from 'fastify';

import { Public } from '../platform/http/route-metadata.js';
import { FleetMetrics } from './fleet-metrics.js';
import { ReplicaMetrics } from './replica-metrics.js';

@ApiExcludeController()
@Public()
@Controller('metrics')
export class MetricsController extends PrometheusController {
  constructor(
    private readonly fleet: FleetMetrics,
    private readonly replicas: ReplicaMetrics,
  ) {
    super();
  }

  @Get()
  override async index(@Res({ passthrough: true }) reply: FastifyReply): Promise<string> {
    await this.fleet.refresh();
    this.replicas.refresh();
    return super.index(reply);
  }
}
