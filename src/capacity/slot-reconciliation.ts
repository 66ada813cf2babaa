import { EventEmitter } from 'node:events';

import { Inject, Injectable } from '@nestjs/common';
import type { Logger } from 'pino';

import { LOGGER } from '../platform/logging/logger.js';
import { SlotsRepository, type WrongCounter } from './slots.repository.js';

/**
 * Compares the counters that admissions rely on with the tunnels that they count. A trigger keeps them, so there is nothing to
 * repair unless somebody has worked on the database by hand; then, better here than in a refusal or an oversold server.
 */
@Injectable()
export class SlotReconciliation {
  /** Tells of each counter that was put right. */
  readonly repairs = new EventEmitter<{ repaired: [WrongCounter] }>();

  constructor(
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly slots: SlotsRepository,
  ) {}

  async run(): Promise<void> {
    for (const wrong of await this.slots.reconcile()) {
      this.logger.warn(wrong, 'counter of open tunnels put right');
      this.repairs.emit('repaired', wrong);
    }
  }
}
