import { Injectable } from '@nestjs/common';

import { BoreServerClient } from '../servers/bore-server-client.js';
import { CapacityRepository } from './capacity.repository.js';
import { CapacityService } from './capacity.service.js';
import { type AdminCapacityView, FLEET_MAX, type FleetView, locationsOf, percentOf, type ServerLoad } from './fleet.js';
import { FleetRepository } from './fleet.repository.js';

/** How the fleet is, server by server, for administrators. */
@Injectable()
export class FleetService {
  constructor(
    private readonly slots: CapacityRepository,
    private readonly capacity: CapacityService,
    private readonly fleet: FleetRepository,
    private readonly boreServers: BoreServerClient,
  ) {}

  async showCapacity(): Promise<AdminCapacityView> {
    const [{ total, capacity, open }, { free }, { servers, truncated }] = await Promise.all([
      this.slots.totals(),
      this.capacity.show(),
      this.servers(),
    ]);
    return {
      total,
      reserved: total - capacity,
      open,
      free,
      utilizationPercent: percentOf(open, total),
      locations: locationsOf(servers),
      servers,
      truncated,
    };
  }

  async showFleet(): Promise<FleetView> {
    const [counts, { servers, truncated }] = await Promise.all([this.fleet.counts(), this.servers()]);
    return { ...counts, items: servers, truncated };
  }

  private async servers(): Promise<{ servers: ServerLoad[]; truncated: boolean }> {
    const unreachable = new Set(this.boreServers.unreachable());
    const rows = await this.fleet.servers();
    const servers = rows.slice(0, FLEET_MAX).map((row) => ({ ...row, reachable: !unreachable.has(row.id) }));
    return { servers, truncated: rows.length > FLEET_MAX };
  }
}
