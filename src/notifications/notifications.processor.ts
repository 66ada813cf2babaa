import { InjectQueue, Processor } from '@nestjs/bullmq';
import { Inject } from '@nestjs/common';
import type { Queue } from 'bullmq';
import type { Logger } from 'pino';
import { z } from 'zod';

import { CONFIG, type Config } from '../platform/config/config.js';
import { LOGGER } from '../platform/logging/logger.js';
import { jobOrigin } from '../platform/queue/job-context.js';
import { QueueClients } from '../platform/queue/queue-clients.js';
import { QueueWatch } from '../platform/queue/queue-watch.js';
import { QueueWorker, WORKER_OPTIONS } from '../platform/queue/queue-worker.js';
import { inQueueingSpan } from '../platform/tracing/job-spans.js';
import { NotificationCourier } from './notification-courier.js';
import { NotificationsRepository } from './notifications.repository.js';
import { NotificationsService } from './notifications.service.js';

/** The queue's name, also its label in metrics. */
export const NOTIFICATIONS_QUEUE = 'notifications';

/** One for each target that may be set (eleven), so that those that hang keep nobody else waiting, and the schedule's own. */
const CONCURRENCY = 16;
/** A run of forgetting; far more than are written in the hour between two. */
const FORGET_BATCH = 5_000;
/** Old notifications go once in so many looks: a minute at the default. */
const FORGET_FACTOR = 12;

const Task = z.enum(['find-notifications', 'deliver-notifications', 'forget-notifications']);
type Task = z.infer<typeof Task>;
const Delivery = z.object({ target: z.string() });

/**
 * Looks for what is to be told, and has it delivered. A job is a hint to look at the rows: one that is lost is followed by the next
 * of the schedule, one that is doubled finds nothing to do.
 */
@Processor(NOTIFICATIONS_QUEUE, { ...WORKER_OPTIONS, concurrency: CONCURRENCY })
export class NotificationsProcessor extends QueueWorker<Task> {
  constructor(
    @Inject(CONFIG) private readonly config: Config,
    @Inject(LOGGER) logger: Logger,
    @InjectQueue(NOTIFICATIONS_QUEUE) private readonly queue: Queue,
    clients: QueueClients,
    watch: QueueWatch,
    private readonly notifications: NotificationsRepository,
    private readonly service: NotificationsService,
    private readonly courier: NotificationCourier,
  ) {
    const everyMs = config.HOUSEKEEPING_INTERVAL_MS;
    super({ queue, logger, clients, watch }, Task.options, [
      { task: 'find-notifications', everyMs },
      { task: 'forget-notifications', everyMs: everyMs * FORGET_FACTOR },
    ]);
  }

  protected override endWork(): Promise<void> {
    return this.courier.stop();
  }

  protected async perform(task: Task, data: unknown): Promise<void> {
    switch (task) {
      case 'find-notifications':
        return this.look();
      case 'deliver-notifications':
        return this.courier.deliverTo(Delivery.parse(data).target);
      case 'forget-notifications':
        await this.courier.giveUpOld();
        return this.notifications.forget(this.config.NOTIFICATION_RETENTION_DAYS, FORGET_BATCH);
    }
  }

  private async look(): Promise<void> {
    const due = await this.service.look();
    // gone when done: the rows are what is remembered
    const opts = { removeOnComplete: true, removeOnFail: true };
    if (due.length === 0) return;
    await inQueueingSpan(NOTIFICATIONS_QUEUE, 'deliver-notifications', (carried) =>
      this.queue.addBulk(
        due.map((target) => ({
          name: 'deliver-notifications',
          data: { target, ...jobOrigin() },
          opts: { ...opts, ...carried },
        })),
      ),
    );
  }
}
