import { InjectQueue, OnWorkerEvent, Processor, WorkerHost } from '@nestjs/bullmq';
import { Inject, type OnApplicationBootstrap } from '@nestjs/common';
import type { Job, Queue } from 'bullmq';
import type { Logger } from 'pino';
import { z } from 'zod';

import { CONFIG, type Config } from '../platform/config/config.js';
import { LOGGER } from '../platform/logging/logger.js';
import { ServersRepository } from '../servers/servers.repository.js';
import { TunnelsRepository } from '../tunnels/tunnels.repository.js';
import { TunnelsService } from '../tunnels/tunnels.service.js';

/** The queue's name, also its label in metrics. */
export const HOUSEKEEPING_QUEUE = 'housekeeping';

/** Tunnels closed in one run, of each kind: bounded, so that a run ends before the next is due. */
const CLOSE_BATCH = 100;

const Task = z.enum(['close-due-tunnels', 'lose-expired-servers']);
type Task = z.infer<typeof Task>;

/**
 * Gives back what time has ended: server leases, tunnels that nobody connects, tunnels past their time to live. One
 * scheduler for all backends; each run is one idempotent statement, so a run that is lost or doubled does no harm.
 */
@Processor(HOUSEKEEPING_QUEUE)
export class HousekeepingProcessor extends WorkerHost implements OnApplicationBootstrap {
  constructor(
    @Inject(CONFIG) private readonly config: Config,
    @Inject(LOGGER) private readonly logger: Logger,
    @InjectQueue(HOUSEKEEPING_QUEUE) private readonly queue: Queue,
    private readonly servers: ServersRepository,
    private readonly tunnels: TunnelsRepository,
    private readonly tunnelsService: TunnelsService,
  ) {
    super();
  }

  async onApplicationBootstrap(): Promise<void> {
    this.queue.on('error', (err) => this.logger.warn({ err }, 'queue connection failed'));
    const every = this.config.HOUSEKEEPING_INTERVAL_MS;
    for (const task of Task.options) await this.queue.upsertJobScheduler(task, { every }, { name: task });
  }

  async process(job: Job): Promise<void> {
    await this.tasks[Task.parse(job.name)]();
  }

  private readonly tasks: Record<Task, () => Promise<void>> = {
    'close-due-tunnels': async () => {
      const closed = await this.tunnelsService.closeDue(CLOSE_BATCH);
      if (closed > 0) this.logger.info({ closed }, 'tunnels expired or abandoned');
    },
    'lose-expired-servers': async () => {
      const lost = await this.servers.loseExpired();
      const offline = await this.tunnels.setOfflineOnLostServers();
      if (lost.length > 0) this.logger.warn({ serverIds: lost, tunnels: offline }, 'bore-servers lost');
    },
  };

  @OnWorkerEvent('failed')
  onFailed(job: Job | undefined, err: Error): void {
    this.logger.error({ err, task: job?.name }, 'job failed');
  }

  @OnWorkerEvent('error')
  onError(err: Error): void {
    this.logger.warn({ err }, 'queue worker failed');
  }
}
