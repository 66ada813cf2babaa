import { Inject, Injectable } from '@nestjs/common';
import { InjectMetric, makeGaugeProvider } from '@willsoto/nestjs-prometheus';
import type { Logger } from 'pino';
import type { Gauge } from 'prom-client';

import { CapacityService } from '../capacity/capacity.service.js';
import { ServerState, TunnelState } from '../platform/database/generated/enums.js';
import { LOGGER } from '../platform/logging/logger.js';
import { ServersRepository } from '../servers/servers.repository.js';
import { TunnelsRepository } from '../tunnels/tunnels.repository.js';

const UTILIZATION = 'bore_capacity_utilization_percent';
const TUNNELS = 'bore_tunnels';
const SERVERS = 'bore_servers';

/** Scrapes closer together than this share one look at the database. */
const FRESH_MS = 5_000;

/** Gauges of what the database holds, read at scrape time. Every backend shows the same: do not add them up. */
@Injectable()
export class FleetMetrics {
  private readAt = -Infinity;
  private reading: Promise<void> | undefined;

  constructor(
    @Inject(LOGGER) private readonly logger: Logger,
    @InjectMetric(UTILIZATION) private readonly utilization: Gauge,
    @InjectMetric(TUNNELS) private readonly tunnelsByState: Gauge,
    @InjectMetric(SERVERS) private readonly serversByState: Gauge,
    private readonly capacity: CapacityService,
    private readonly tunnels: TunnelsRepository,
    private readonly servers: ServersRepository,
  ) {}

  /** Never fails: without the database these gauges are left out, and the scrape shows the rest. */
  refresh(): Promise<void> {
    if (!this.reading && performance.now() - this.readAt >= FRESH_MS) {
      this.reading = this.read().finally(() => {
        this.readAt = performance.now();
        this.reading = undefined;
      });
    }
    // scrapes that overlap wait for the same look
    return this.reading ?? Promise.resolve();
  }

  private async read(): Promise<void> {
    try {
      const [percent, tunnels, servers] = await Promise.all([
        this.capacity.utilizationPercent(),
        this.tunnels.countByState(),
        this.servers.countByState(),
      ]);
      this.forget();
      this.utilization.set(percent);
      const open = Object.values(TunnelState).filter((state) => state !== TunnelState.closed);
      setEach(this.tunnelsByState, open, tunnels);
      setEach(this.serversByState, Object.values(ServerState), servers);
    } catch (err) {
      this.logger.warn({ err }, 'fleet metrics could not be read');
      this.forget();
    }
  }

  /** Removed, and not zero: without a database utilization is unknown. */
  private forget(): void {
    this.utilization.remove();
    this.tunnelsByState.reset();
    this.serversByState.reset();
  }
}

/** A state that no row is in is zero, and not absent. */
function setEach(gauge: Gauge, states: readonly string[], rows: readonly { state: string; count: number }[]): void {
  for (const state of states) gauge.set({ state }, rows.find((row) => row.state === state)?.count ?? 0);
}

export const fleetMetricProviders = [
  makeGaugeProvider({ name: UTILIZATION, help: 'Open tunnels as a share of the capacity of all online bore-servers' }),
  makeGaugeProvider({ name: TUNNELS, help: 'Tunnels that are not closed', labelNames: ['state'] }),
  makeGaugeProvider({ name: SERVERS, help: 'bore-servers', labelNames: ['state'] }),
  FleetMetrics,
];
