import { Injectable } from '@nestjs/common';

import { BoreServerClient } from '../servers/bore-server-client.js';
import { scrapeGauge } from './scrape-gauge.js';

const VALUES = { closed: 0, 'half-open': 1, open: 2 } as const;

/** This backend's circuit breakers; it keeps a bounded number of them. */
@Injectable()
export class BreakerMetrics {
  constructor(boreServers: BoreServerClient) {
    scrapeGauge(
      {
        name: 'bore_circuit_breaker_state',
        help: 'This backend’s circuit breaker of each bore-server that it has called: 0 closed, 1 half-open, 2 open',
        labelNames: ['server'],
      },
      (gauge) => {
        for (const { serverId: server, state } of boreServers.breakerStates()) gauge.set({ server }, VALUES[state]);
      },
    );
  }
}
