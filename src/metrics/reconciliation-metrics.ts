import { Injectable } from '@nestjs/common';
import { InjectMetric, makeCounterProvider } from '@willsoto/nestjs-prometheus';
import type { Counter } from 'prom-client';

import { SlotReconciliation } from '../capacity/slot-reconciliation.js';
import { SlotCounter } from '../capacity/slots.repository.js';

const RECONCILIATIONS = 'bore_reconciliations_total';

/** Counts what reconciliation had to put right, in this process. Anything but zero wants somebody to ask why. */
@Injectable()
export class ReconciliationMetrics {
  constructor(@InjectMetric(RECONCILIATIONS) total: Counter, reconciliation: SlotReconciliation) {
    // there from the start, or the first one would not show as a change
    for (const counter of SlotCounter.options) total.inc({ counter }, 0);
    reconciliation.repairs.on('repaired', ({ counter }) => total.inc({ counter }));
  }
}

export const reconciliationMetricProviders = [
  makeCounterProvider({
    name: RECONCILIATIONS,
    help: 'Counters of open tunnels that were wrong and have been put right',
    labelNames: ['counter'],
  }),
  ReconciliationMetrics,
];
