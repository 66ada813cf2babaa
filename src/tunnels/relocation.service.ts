import { Inject, Injectable } from '@nestjs/common';
import type { Logger } from 'pino';

import { LOGGER } from '../platform/logging/logger.js';
import { BoreServerClient } from '../servers/bore-server-client.js';
import { RelocationsRepository } from './relocations.repository.js';

/** Moved in one statement, under the lock of admissions: some ten milliseconds. */
const BATCH = 25;
/** Of one run, so that it ends before the next is due: 1,000 tunnels, and as many in the next. */
const BATCHES_MAX = 40;

/**
 * Moves tunnels off servers that do not come back. Their clients find the new address where they found the old one, in the
 * API: those of borectl ask, and only their tunnels, and others whose owner wants it, are moved.
 */
@Injectable()
export class RelocationService {
  constructor(
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly relocations: RelocationsRepository,
    private readonly boreServers: BoreServerClient,
  ) {}

  /** Moves what can be moved now; the rest stays where it is, and is tried again by the next run. */
  async run(): Promise<void> {
    for (let batch = 0; batch < BATCHES_MAX; batch++) {
      const moved = await this.relocations.relocate(this.boreServers.unreachable(), BATCH);
      for (const relocation of moved) this.logger.warn(relocation, 'tunnel relocated');
      if (moved.length < BATCH) break;
    }
  }
}
