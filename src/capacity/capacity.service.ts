import { Injectable } from '@nestjs/common';

import { BoreServerClient } from '../servers/bore-server-client.js';
import type { CapacityView } from './capacity.js';
import { CapacityRepository } from './capacity.repository.js';

/** Says how full the fleet is. Admission itself is decided by the database (`open_tunnel`), never from these figures. */
@Injectable()
export class CapacityService {
  constructor(
    private readonly slots: CapacityRepository,
    private readonly boreServers: BoreServerClient,
  ) {}

  /** What this backend can place now: not on servers that it cannot reach. */
  async show(): Promise<CapacityView> {
    const [{ capacity, open }, locations] = await Promise.all([
      this.slots.totals(),
      this.slots.locations(this.boreServers.unreachable()),
    ]);
    const onServers = locations.reduce((sum, row) => sum + row.free, 0);
    const free = Math.max(0, Math.min(capacity - open, onServers));
    return { capacity, open, free, locations: locations.map((row) => ({ ...row, free: Math.min(row.free, free) })) };
  }
}
