import { Injectable } from '@nestjs/common';
import { InjectMetric, makeCounterProvider } from '@willsoto/nestjs-prometheus';
import type { Counter } from 'prom-client';

import { PlaneService, REPORT_OUTCOMES } from '../tunnels/plane.service.js';
import { ADMISSION_OUTCOMES, TunnelsService } from '../tunnels/tunnels.service.js';

const ADMISSIONS = 'bore_tunnel_admissions_total';
const REPORTS = 'bore_usage_reports_total';

/** What this backend has decided about new tunnels, and done with reports of their usage. */
@Injectable()
export class TunnelMetrics {
  constructor(
    @InjectMetric(ADMISSIONS) admissions: Counter,
    @InjectMetric(REPORTS) reports: Counter,
    tunnels: TunnelsService,
    plane: PlaneService,
  ) {
    // there from the start, or the first one would not show as a change
    for (const outcome of ADMISSION_OUTCOMES) admissions.inc({ outcome }, 0);
    for (const outcome of REPORT_OUTCOMES) reports.inc({ outcome }, 0);
    tunnels.admissions.on('decided', (outcome) => admissions.inc({ outcome }));
    plane.reports.on('handled', (outcome) => reports.inc({ outcome }));
  }
}

export const tunnelMetricProviders = [
  makeCounterProvider({
    name: ADMISSIONS,
    help: 'Requests for a tunnel, by what was decided',
    labelNames: ['outcome'],
  }),
  makeCounterProvider({
    name: REPORTS,
    help: 'Usage reports of bore-servers; refused: the reporter belongs to another server',
    labelNames: ['outcome'],
  }),
  TunnelMetrics,
];
