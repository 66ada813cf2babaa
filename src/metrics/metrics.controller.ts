import { Controller, Get, Res } from '@nestjs/common';
import { ApiExcludeController } from '@nestjs/swagger';
import { PrometheusController } from '@willsoto/nestjs-prometheus';
import type { FastifyReply } from 'fastify';

import { Public } from '../platform/http/route-metadata.js';
import { EventMetrics } from './event-metrics.js';
import { FleetMetrics } from './fleet-metrics.js';
import { ReplicaMetrics } from './replica-metrics.js';

@ApiExcludeController()
@Public()
@Controller('metrics')
export class MetricsController extends PrometheusController {
  constructor(
    private readonly fleet: FleetMetrics,
    private readonly replicas: ReplicaMetrics,
    private readonly events: EventMetrics,
  ) {
    super();
  }

  @Get()
  override async index(@Res({ passthrough: true }) reply: FastifyReply): Promise<string> {
    this.events.refresh();
    await this.fleet.refresh();
    this.replicas.refresh();
    return super.index(reply);
  }
}
